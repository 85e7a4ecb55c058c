// The progress of a campaign moves by itself: the page's own figures are fetched again while something is to come.
"use strict";

{
  const SECONDS_AFTER_A_FAULT = 30;
  const SECONDS_BETWEEN_WORDS = 30;
  const live = document.getElementById("viber-live");
  const spoken = document.getElementById("viber-spoken");
  let timer;
  let spokenAt = Date.now();

  const seconds = () => Number(live.querySelector("[data-seconds]")?.dataset.seconds);

  // A page that takes long to count is not counted all the time.
  const planNext = (wanted, took = 0) => {
    clearTimeout(timer);
    if (wanted) {
      timer = setTimeout(look, Math.max(wanted * 1000, took * 10));
    }
  };

  const look = async () => {
    if (document.hidden) {
      return;
    }
    const began = Date.now();
    try {
      const url = new URL(location.href);
      url.searchParams.set("fragment", "1");
      const response = await fetch(url);
      if (!response.ok || response.redirected) {
        throw new Error(response.statusText);
      }
      show(await response.text());
      planNext(seconds(), Date.now() - began);
    } catch {
      planNext(SECONDS_AFTER_A_FAULT);
    }
  };

  // What has the focus or was scrolled stays so.
  const show = (html) => {
    const fresh = new DOMParser().parseFromString(html, "text/html").body;
    const focused = place(live, document.activeElement);
    const scrolled = [...live.querySelectorAll(".viber-scroll")].map((box) => [box.id, box.scrollLeft]);
    live.replaceChildren(...fresh.childNodes);
    scrolled.forEach(([id, left]) => document.getElementById(id)?.scrollTo({ left }));
    focused?.()?.focus({ preventScroll: true });
    speak();
  };

  // How to find an element again after it has been replaced: by its id, or by where it leads.
  const place = (root, element) => {
    if (!root.contains(element)) {
      return null;
    }
    const { id } = element;
    const href = element.getAttribute("href");
    return () => id ? document.getElementById(id) : [...root.querySelectorAll("a")].find((a) => a.getAttribute("href") === href);
  };

  const speak = () => {
    if (!seconds() || Date.now() - spokenAt > SECONDS_BETWEEN_WORDS * 1000) {
      spokenAt = Date.now();
      spoken.textContent = document.getElementById("viber-said").textContent;
    }
  };

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && seconds()) {
      look();
    }
  });
  planNext(seconds());
}
