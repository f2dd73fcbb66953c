// Renders the mails of the stand-in. Every text is hostile: it only ever becomes a text node, and HTML stays in a sandbox.
"use strict";
const prefix = document.currentScript.dataset.prefix;

function element(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function mail(mail) {
  const head = element("header", "", `From ${mail.from} to ${mail.to.join(", ")}`);
  const body = element("pre", "", mail.text ?? "");
  if (mail.html) {
    const frame = element("iframe", "");
    frame.sandbox = "";
    frame.src = `${prefix}/${mail.number}.html`;
    return element("article", "", head, element("h2", "", mail.subject), frame);
  }
  return element("article", "", head, element("h2", "", mail.subject), body);
}

let shown = "";
async function refresh() {
  try {
    const text = await (await fetch(`${prefix}/messages.json`)).text();
    if (text !== shown) {
      shown = text;
      const mails = JSON.parse(text).mails.reverse();
      if (mails.length) document.getElementById("mails").replaceChildren(...mails.map(mail));
    }
  } catch { /* the server is gone or not there yet: the next round shows it */ }
  setTimeout(refresh, 1000);
}
refresh();
