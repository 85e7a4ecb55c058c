// Stores a list in parts, with a bar that moves, so that no request takes long. Without it the whole list goes in one
// request. Sending a part twice does no harm: the server stores each phone once.
"use strict";

(() => {
  const form = document.getElementById("viber-mailing");
  const confirm = form?.elements.namedItem("_confirm");
  if (!confirm) {
    return;
  }
  const rows = form.elements.namedItem("rows");
  const counted = form.elements.namedItem("new");
  const token = form.elements.namedItem("csrfmiddlewaretoken");
  const atOnce = Number(form.dataset.atOnce);
  const [columns, people, ...remarks] = JSON.parse(rows.value);
  const panel = form.querySelector(".viber-progress");
  const bar = panel.querySelector("progress");
  const busy = panel.querySelector(".viber-busy");
  const status = panel.querySelector("[role=status]");
  let done = 0;
  let interrupted = false;

  /** Thrown with a sentence for the person in front of it. */
  class Trouble extends Error {}

  /** A number as people write it in the language of the page. */
  function grouped(number) {
    return number.toLocaleString(document.documentElement.lang || undefined);
  }

  async function store(some) {
    const data = new FormData(form);
    data.set("rows", JSON.stringify([columns, some, ...remarks]));
    data.set("_store", "1");
    let response;
    try {
      response = await fetch(location.href, { method: "POST", body: data, headers: { Accept: "application/json" } });
    } catch {
      throw new Trouble(form.dataset.again);
    }
    if (response.redirected || response.status === 403) {
      throw new Trouble(form.dataset.login);
    }
    const answer = await response.json().catch(() => ({}));
    if (!response.ok || answer.new === undefined) {
      throw new Trouble(answer.error ?? form.dataset.again);
    }
    counted.value = Number(counted.value) + answer.new;
  }

  /** Who has logged in again has another token. */
  async function renewToken() {
    const response = await fetch(location.href).catch(() => null);
    const page = new DOMParser().parseFromString(response?.ok ? await response.text() : "", "text/html");
    const fresh = page.querySelector(".viber-writing")?.closest("form").elements.namedItem("csrfmiddlewaretoken");
    token.value = fresh?.value ?? token.value;
  }

  function showWork(isWorking) {
    for (const button of form.querySelectorAll("input[type=submit]")) {
      button.disabled = isWorking;
    }
    panel.hidden = false;
    busy.hidden = !isWorking;
    bar.max = people.length;
    bar.value = done;
  }

  function showTrouble(error) {
    interrupted = true;
    showWork(false);
    const stored = form.dataset.stored.replace("%(done)s", grouped(done)).replace("%(all)s", grouped(people.length));
    status.textContent = `${stored} ${error instanceof Trouble ? error.message : form.dataset.again}`;
    confirm.value = form.dataset.goOn;
  }

  async function storeAll() {
    document.querySelector(".viber-nothing").hidden = true;
    showWork(true);
    status.textContent = "";
    try {
      if (interrupted) {
        await renewToken();
      }
      while (done < people.length) {
        await store(people.slice(done, done + atOnce));
        done = Math.min(done + atOnce, people.length);
        bar.value = done;
      }
    } catch (error) {
      showTrouble(error);
      return;
    }
    // The form itself leads to the campaign's page; by now there is nothing in it that is not stored.
    rows.value = JSON.stringify([columns, people.slice(-1), ...remarks]);
    showWork(false);
    busy.hidden = false;
    form.requestSubmit(confirm);
  }

  form.addEventListener("submit", (event) => {
    if (event.submitter === confirm && done < people.length && people.length > atOnce) {
      event.preventDefault();
      storeAll();
    }
  });
})();
