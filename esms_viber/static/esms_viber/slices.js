// Works through a large selection in parts, with a bar that moves, so that no request takes long. Without it each press
// of the button works for some seconds. Doing a part twice does no harm: the server looks at each row again.
"use strict";

(() => {
  const panel = document.getElementById("viber-work");
  const form = panel?.closest("form");
  if (!form) {
    return;
  }
  const state = form.elements.namedItem(panel.dataset.field);
  const token = form.elements.namedItem("csrfmiddlewaretoken");
  const bar = panel.querySelector("progress");
  const busy = panel.querySelector(".viber-busy");
  const status = panel.querySelector("[role=status]");
  let isFinished = false;
  let wasInterrupted = false;

  /** Thrown with a sentence for the person in front of it. */
  class Trouble extends Error {}

  async function doPart(button) {
    const data = new FormData(form);
    data.set(button.name, button.value);
    data.set(panel.dataset.part, "1");
    let response;
    try {
      response = await fetch(location.href, { method: "POST", body: data, headers: { Accept: "application/json" } });
    } catch {
      throw new Trouble(panel.dataset.again);
    }
    if (response.status === 403) {
      throw new Trouble(panel.dataset.login);
    }
    const answer = await response.json().catch(() => ({}));
    if (response.redirected || !response.ok || answer.work === undefined) {
      throw new Trouble(response.redirected ? panel.dataset.login : panel.dataset.again);
    }
    state.value = answer.work;
    bar.value = answer.width;
    status.textContent = answer.said;
    isFinished = answer.finished;
  }

  /** Who has logged in again has another token. */
  async function renewToken() {
    const response = await fetch(location.href).catch(() => null);
    const page = new DOMParser().parseFromString(response?.ok ? await response.text() : "", "text/html");
    const fresh = page.querySelector("[name=csrfmiddlewaretoken]");
    token.value = fresh?.value ?? token.value;
  }

  function showWork(isWorking) {
    for (const button of form.querySelectorAll("input[type=submit]")) {
      button.disabled = isWorking;
    }
    panel.hidden = false;
    busy.hidden = !isWorking;
  }

  async function doAll(button) {
    showWork(true);
    try {
      if (wasInterrupted) {
        await renewToken();
      }
      while (!isFinished) {
        await doPart(button);
      }
    } catch (error) {
      wasInterrupted = true;
      showWork(false);
      status.textContent = `${status.textContent} ${error instanceof Trouble ? error.message : panel.dataset.again}`.trim();
      button.value = panel.dataset.goOn;
      return;
    }
    // The form itself leads back; by now nothing is left to do.
    showWork(false);
    busy.hidden = false;
    form.requestSubmit(button);
  }

  form.addEventListener("submit", (event) => {
    if (!isFinished) {
      event.preventDefault();
      doAll(event.submitter);
    }
  });
})();
