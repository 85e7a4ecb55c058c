// Stores a long list in parts, with a bar that moves, so that no request takes long. Without it the whole list goes in
// one request. Sending a part twice does no harm: the server stores each phone once.
"use strict";

(() => {
  const form = document.getElementById("viber-mailing");
  const confirm = form?.elements.namedItem("_confirm");
  if (!confirm) {
    return;
  }
  const rows = form.elements.namedItem("rows");
  const atOnce = Number(form.dataset.atOnce);
  const [columns, people] = JSON.parse(rows.value);
  const panel = form.querySelector(".viber-progress");
  const bar = panel.querySelector("progress");
  const status = panel.querySelector("[role=status]");
  let done = 0;

  const part = () => JSON.stringify([columns, people.slice(done, done + atOnce)]);

  /** Thrown with a sentence for the person in front of it. */
  class Trouble extends Error {}

  async function store() {
    const data = new FormData(form);
    data.set("rows", part());
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
    if (!response.ok) {
      const answer = await response.json().catch(() => ({}));
      throw new Trouble(answer.error ?? form.dataset.again);
    }
  }

  function lock(locked) {
    for (const button of form.querySelectorAll("input[type=submit]")) {
      button.disabled = locked;
    }
  }

  /** All parts but the last, which is posted as the form itself and leads to the campaign's page. */
  async function storeAll() {
    lock(true);
    panel.hidden = false;
    bar.max = people.length;
    status.textContent = "";
    try {
      while (people.length - done > atOnce) {
        await store();
        done += atOnce;
        bar.value = done;
      }
    } catch (error) {
      status.textContent = error instanceof Trouble ? error.message : form.dataset.again;
      lock(false);
      return;
    }
    rows.value = part();
    lock(false);
    done = people.length;
    form.requestSubmit(confirm);
  }

  form.addEventListener("submit", (event) => {
    if (event.submitter === confirm && people.length - done > atOnce) {
      event.preventDefault();
      storeAll();
    }
  });
})();
