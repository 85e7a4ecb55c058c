// Beside a form in which a message is written: only the parts of its kind, the phone, counters and checks while typing.
// Without it the form shows all parts and is checked when it is saved.
"use strict";

(() => {
  const PARTS = ["content", "image_url", "button_label", "button_url"];
  const PARTNERS = { button_label: "button_url", button_url: "button_label" };
  const NAME = /\{([^{}]+)\}/g; // as in placeholders.py
  const MOST_NAMES = 50;
  const IMAGE = /\.(png|jpe?g|gif|webp)$/i; // as in preview.py: no other address of the site is to be called
  const PAUSE = 500; // milliseconds without a key before the server is asked

  /** The text as the server stores it, so that both count the same characters. */
  const normalized = (text) => text.replace(/\r\n?/g, "\n").normalize("NFC");

  const isWeb = (text) => /^https?:\/\//i.test(text);

  function start(form, preview) {
    const field = (name) => form.elements.namedItem(name);
    // Django's name for the row, and most themes'; without it the element around the input has to do.
    const row = (name) =>
      form.querySelector(`.field-${name}`) ?? (field(name) ?? field(`${name}_0`))?.parentElement ?? null;
    const part = (name) => preview.querySelector(`[data-part=${name}]`);
    const value = (name) => {
      const input = field(name);
      return input && !input.disabled ? input.value : "";
    };

    // -- the kind -----------------------------------------------------------------------------------------------------

    const kinds = [...form.querySelectorAll("input[name=kind]")];

    const partsOf = (number) => kinds[0].dataset.parts.split(" ")[number].split(",");

    /** The first kind that has every part which is filled already, e.g. by the address of the page. */
    function simplestKind() {
      const filled = PARTS.filter((name) => field(name).value);
      return kinds.findIndex((_kind, number) => filled.every((name) => partsOf(number).includes(name)));
    }

    /** Which parts belong to the chosen kind; what is hidden keeps its text, and is not sent. */
    function showParts() {
      const chosen = kinds.findIndex((kind) => kind.checked);
      const wanted = partsOf(chosen);
      for (const name of PARTS) {
        row(name).hidden = !wanted.includes(name);
        field(name).disabled = !wanted.includes(name);
      }
    }

    // -- names in braces ----------------------------------------------------------------------------------------------

    const values = preview.querySelector("[data-part=values]"); // none where braces are only text
    const typed = new Map();
    let names = new Map(); // as they are written first

    const shownName = (name) => name.replace(/\s+/g, " ").trim();

    /** Names that look alike get one value, nearly as in placeholders.py. */
    const key = (name) => shownName(name.normalize("NFKC").toLowerCase().replaceAll("_", " "));

    /** The text with the values that were typed; the name itself, or what is given `instead`, where there is none. */
    function fill(text, { instead = (name) => names.get(key(name)) ?? shownName(name), quote = (each) => each } = {}) {
      if (!values) {
        return text;
      }
      return text.replace(NAME, (whole, name) => (key(name) ? quote(typed.get(key(name)) || instead(name)) : whole));
    }

    /** A value at the beginning of a link is a link itself; one further on is quoted. */
    function fillLink(link) {
      const start = link.match(/^\{[^{}]+\}/)?.[0] ?? "";
      return fill(start) + fill(link.slice(start.length), { quote: encodeURIComponent });
    }

    /** An input for each name, in the order of the text; what was typed for a name comes back with it. */
    function showNames() {
      if (!values) {
        return;
      }
      names = new Map();
      for (const [, name] of PARTS.map(value).join("\n").matchAll(NAME)) {
        if (key(name) && !names.has(key(name)) && names.size < MOST_NAMES) {
          names.set(key(name), shownName(name));
        }
      }
      const known = [...values.querySelectorAll("input")].map((input) => key(input.name.slice("value-".length)));
      if (known.join("}") !== [...names.keys()].join("}")) {
        values.replaceChildren(...[...names.values()].map(makeInput));
      }
      values.closest("fieldset").hidden = !names.size;
    }

    function makeInput(name) {
      const label = document.createElement("label");
      const input = document.createElement("input");
      input.type = "text";
      input.name = `value-${name}`;
      input.value = typed.get(key(name)) ?? "";
      input.autocomplete = "off";
      input.setAttribute("form", form.id);
      label.append(`${name} `, input);
      return label;
    }

    function noteValues() {
      for (const input of values?.querySelectorAll("input") ?? []) {
        typed.set(key(input.name.slice("value-".length)), input.value.trim() && input.value);
      }
    }

    // -- the phone ----------------------------------------------------------------------------------------------------

    function showText() {
      part("brand").textContent = value("brandname").trim() || preview.dataset.ownBrand;
      const text = normalized(fill(value("content")));
      part("text").textContent = text;
      part("text").hidden = !text.trim();
      const button = part("button");
      button.textContent = fill(value("button_label")).trim();
      button.hidden = !button.textContent;
      const link = fillLink(value("button_url").trim());
      if (isWeb(link)) {
        button.href = link;
      } else {
        button.removeAttribute("href");
      }
    }

    /** Where a picture can be taken from: this host only, for no other is to learn who looks at it. */
    function localAddress(address) {
      try {
        if (address.includes("{")) {
          return ""; // it waits for what a column holds
        }
        const url = new URL(address);
        const isLocal = url.protocol === "https:" && url.host === location.host && IMAGE.test(url.pathname);
        // One slash: two would name a host.
        return isLocal ? `/${url.pathname.replace(/^[/\\]+/, "")}${url.search}` : "";
      } catch {
        return "";
      }
    }

    let shown; // the address in the picture's place: not to be loaded again at every pause

    function showPicture() {
      const address = fillLink(value("image_url").trim());
      if (address === shown) {
        return;
      }
      shown = address;
      const frame = part("picture");
      frame.hidden = !address;
      const local = localAddress(address);
      const inside = document.createElement(local ? "img" : "p");
      if (local) {
        inside.src = local;
        inside.alt = preview.dataset.picture;
      } else {
        inside.textContent = address;
      }
      frame.replaceChildren(inside);
    }

    // -- counters -----------------------------------------------------------------------------------------------------

    const counted = PARTS.map(field).filter((input) => input?.dataset.limit);

    /** The server's remark below an input. */
    const note = (input) => document.getElementById(`${input?.id}_note`);

    function describe(input, id) {
      input.setAttribute("aria-describedby", `${input.getAttribute("aria-describedby") ?? ""} ${id}`.trim());
    }

    function showCounts() {
      for (const input of counted) {
        // Code points, as the server counts, which cuts off the spaces around it.
        const length = [...normalized(fill(input.value, { instead: () => "" })).trim()].length;
        showNote(input, `${length} / ${input.dataset.limit}`, length > Number(input.dataset.limit));
      }
    }

    function showNote(input, sentence, isOver) {
      const place = note(input);
      if (place) {
        place.textContent = sentence;
        place.classList.toggle("viber-over", isOver);
      }
    }

    // -- checks -------------------------------------------------------------------------------------------------------

    const touched = new Set();
    let timer;
    let asked = 0;

    async function check() {
      const number = ++asked;
      const data = new FormData(form);
      for (const input of form.querySelectorAll("input[type=file]")) {
        data.delete(input.name);
      }
      data.delete("rows");
      data.delete("phones");
      data.append("_check", "1");
      data.append("longest", field("content").dataset.longest ?? "");
      let found;
      try {
        const response = await fetch(location.href, { method: "POST", body: data, redirect: "error" });
        found = response.ok ? await response.json() : null;
      } catch {
        found = null;
      }
      // Without an answer nothing is said here; saving tells.
      if (found && number === asked) {
        showErrors(found.errors);
        const becomes = found.phone && preview.dataset.becomes.replace("%(phone)s", found.phone);
        showNote(field("phone"), found.opted_out || becomes, Boolean(found.opted_out));
        showNote(field("content"), found.room.sentence, found.room.is_over);
      }
    }

    function showErrors(errors) {
      for (const name of touched) {
        const sentences = row(name).hidden ? [] : (errors[name] ?? []);
        // What the server wrote into the page stands in other places.
        row(name).querySelectorAll("ul.errorlist").forEach((list) => list.remove());
        row(name).querySelectorAll(".errors").forEach((place) => place.classList.remove("errors"));
        row(name).classList.toggle("errors", sentences.length > 0);
        for (const input of inputs(name)) {
          if (sentences.length) {
            input.setAttribute("aria-invalid", "true");
          } else {
            input.removeAttribute("aria-invalid");
          }
        }
        placeFor(name).replaceChildren(...(sentences.length ? [makeList(sentences)] : []));
      }
    }

    const inputs = (name) => row(name).querySelectorAll("input, textarea, select");

    /** Where the errors of a field are told: there before they are, so that a screen reader follows. */
    function placeFor(name) {
      const id = `viber-errors-${name}`;
      let place = document.getElementById(id);
      if (!place) {
        place = document.createElement("div");
        place.id = id;
        place.setAttribute("aria-live", "polite");
        row(name).append(place);
        inputs(name).forEach((input) => describe(input, id));
      }
      return place;
    }

    function makeList(sentences) {
      const list = document.createElement("ul");
      list.className = "errorlist";
      for (const sentence of sentences) {
        const item = document.createElement("li");
        item.textContent = sentence;
        list.append(item);
      }
      return list;
    }

    function touch(name) {
      const known = name.replace(/_[01]$/, "");
      for (const each of [known, PARTNERS[known]]) {
        if (each && row(each)) {
          touched.add(each);
          placeFor(each);
        }
      }
      clearTimeout(timer);
      timer = setTimeout(pause, PAUSE);
    }

    function pause() {
      showPicture();
      check();
    }

    // -- where the writing begins -------------------------------------------------------------------------------------

    /** In the first field with an error, else at the chosen kind: Django takes the first, which a key press changes. */
    function focusFirst() {
      const active = document.activeElement;
      const first = [document.getElementById("id_template"), ...kinds];
      if (active !== document.body && !first.includes(active)) {
        return; // somebody writes already
      }
      const wrong = [...form.elements].find((input) => input.getAttribute("aria-invalid") && input.offsetParent);
      const begin = wrong ?? active;
      (first.includes(begin) ? (kinds.find((kind) => kind.checked) ?? begin) : begin).focus();
    }

    // -----------------------------------------------------------------------------------------------------------------

    if (kinds.length) {
      if (!kinds.some((kind) => kind.checked)) {
        kinds[simplestKind()].checked = true;
      }
      showParts();
    }
    for (const input of [...counted, field("content")].filter(note)) {
      describe(input, note(input).id);
    }
    noteValues();
    showNames();
    showText();
    showPicture();
    showCounts();
    // Not before Django's own script has set the focus, which it may do late.
    window.addEventListener("load", focusFirst);
    if (field("content").value !== field("content").defaultValue) {
      check(); // the browser has kept a text of which the page does not know
    }
    // On a wide screen it stands outside of the form.
    preview.addEventListener("input", (event) => {
      event.stopPropagation();
      noteValues();
      showText();
      showCounts();
      clearTimeout(timer);
      timer = setTimeout(pause, PAUSE);
    });
    form.addEventListener("input", (event) => {
      showNames();
      showText();
      showCounts();
      const isBeside = event.target.closest(".viber-rehearsal, .viber-from-template");
      if (event.target.name && event.target.name !== "kind" && !isBeside) {
        touch(event.target.name);
      }
    });
    form.addEventListener("change", (event) => {
      if (event.target.name === "kind") {
        showParts();
        showNames();
        showText();
        showPicture();
        touch("kind");
      } else if (event.target.name === "image_url") {
        showPicture();
      }
    });
  }

  /** On a narrow screen the phone follows the text, in sight of who types; on a wide one it stands beside the form. */
  function place(preview) {
    const beside = preview.parentElement;
    const part = document.querySelector(".viber-fields .field-content")?.closest("fieldset");
    const narrow = matchMedia("(max-width: 1024px)");
    const move = () => (narrow.matches && part ? part.after(preview) : beside.append(preview));
    narrow.addEventListener("change", move);
    move();
  }

  /** Some themes show the buttons outside of the form, and know their own by name. */
  function adopt(form) {
    form.id ||= "viber-form";
    const own =
      ".viber-submit input, .viber-values input, :is(.viber-rehearsal, .viber-from-template) :is(input, select, button)";
    for (const input of document.querySelectorAll(own)) {
      if (!input.form) {
        input.setAttribute("form", form.id);
      }
    }
  }

  /** Enter in the field of one's own phone is meant for the button beside it, not for the form's first. */
  function pressOwnButton(event) {
    if (event.key === "Enter" && event.target.name === "rehearsal_phone") {
      event.preventDefault();
      event.target.form.requestSubmit(event.target.form.elements.namedItem("_rehearse"));
    }
  }

  document.addEventListener("keydown", pressOwnButton);
  document.addEventListener("DOMContentLoaded", () => {
    const preview = document.querySelector(".viber-preview");
    if (!preview) {
      return;
    }
    place(preview);
    // Where the message may only be looked at there is nothing to follow.
    const form = document.querySelector(".viber-fields [name=content]")?.form;
    if (form) {
      adopt(form);
      start(form, preview);
    }
  });
})();
