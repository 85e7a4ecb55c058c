// Adds messages to the phone as they arrive.
"use strict";

const SECOND = 1000;
const chat = document.getElementById("chat");
const screenArea = document.getElementById("screen");
const line = document.getElementById("line");
const template = document.getElementById("bubble");
let last = chat.dataset.last;

/** Fill in a part of the bubble, or take it out where the message has none. */
function fill(bubble, selector, value, apply) {
  const part = bubble.querySelector(selector);
  if (value) {
    apply(part);
  } else {
    part.remove();
  }
}

function makeBubble(message) {
  const bubble = template.content.firstElementChild.cloneNode(true);
  bubble.querySelector(".bubble-brand").textContent = message.brand;
  fill(bubble, ".bubble-image", message.image, (part) => {
    part.querySelector("img").src = message.image;
    part.querySelector("figcaption").textContent = message.image_url;
  });
  fill(bubble, ".bubble-text", message.text, (part) => {
    part.textContent = message.text;
  });
  fill(bubble, ".bubble-button", message.button_label, (part) => {
    part.textContent = message.button_label;
    if (message.button_url) {
      part.href = message.button_url;
    }
  });
  const time = bubble.querySelector("time");
  time.textContent = message.time;
  time.dateTime = message.moment;
  return bubble;
}

function showEnd() {
  screenArea.scrollTop = screenArea.scrollHeight;
}

function add(messages) {
  for (const message of messages) {
    const bubble = makeBubble(message);
    bubble.classList.add("is-new");
    chat.append(bubble);
    last = message.arrival;
  }
  if (messages.length) {
    showEnd();
  }
}

async function look() {
  const response = await fetch(`${chat.dataset.url}?after=${last}`, { headers: { Accept: "application/json" } });
  if (!response.ok) {
    throw new Error(`HTTP ${response.status}`);
  }
  const { run, messages } = await response.json();
  if (run !== chat.dataset.run) {
    // The gateway was restarted and counts anew.
    location.reload();
    return;
  }
  add(messages);
}

async function keepLooking() {
  if (!document.hidden) {
    try {
      await look();
      line.textContent = "";
    } catch {
      line.textContent = line.dataset.lost;
    }
  }
  setTimeout(keepLooking, SECOND);
}

function markMissing(image) {
  image.closest(".bubble-image").classList.add("is-missing");
}

// An image's error does not bubble, and may have come before this script.
chat.addEventListener("error", (event) => markMissing(event.target), true);
chat.addEventListener("load", showEnd, true);
for (const image of chat.querySelectorAll("img")) {
  if (image.complete && !image.naturalWidth) {
    markMissing(image);
  }
}

showEnd();
keepLooking();
