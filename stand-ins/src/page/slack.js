// Renders the channels of the Slack stand-in. Every text is hostile: it only ever becomes a text node.
"use strict";
const prefix = document.currentScript.dataset.prefix;

const unescape = text => text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");

function element(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

// Slack's mrkdwn: <url|label>, ```code``` of several lines, `code`, *bold*, _italic_.
function mrkdwn(text) {
  const parts = [];
  let rest = 0;
  for (const found of text.matchAll(/<(https?:[^|>\s]+)(?:\|([^>]*))?>|```\n?([^`]+?)\n?```|`([^`\n]+)`|\*([^*\n]+)\*|(?<!\w)_([^_\n]+)_(?!\w)/g)) {
    parts.push(unescape(text.slice(rest, found.index)));
    rest = found.index + found[0].length;
    if (found[1]) {
      const link = element("a", "", unescape(found[2] ?? found[1]));
      link.href = unescape(found[1]);
      link.rel = "noreferrer";
      parts.push(link);
    } else if (found[3]) parts.push(element("pre", "", unescape(found[3])));
    else if (found[4]) parts.push(element("code", "", unescape(found[4])));
    else if (found[5]) parts.push(element("b", "", ...mrkdwn(found[5])));
    else parts.push(element("i", "", ...mrkdwn(found[6])));
  }
  parts.push(unescape(text.slice(rest)));
  return parts;
}

const words = object => object?.type === "plain_text" ? [object.text] : mrkdwn(object?.text ?? "");

function block(block) {
  switch (block.type) {
    case "divider": return document.createElement("hr");
    case "actions": return element("div", "block", ...block.elements.map(button => {
      const link = element("a", "button", ...words(button.text));
      if (/^https?:/.test(button.url ?? "")) link.href = button.url;
      return link;
    }));
    case "context": return element("div", "block context", ...block.elements.flatMap(part => [...words(part), " "]));
    default: {
      const node = element("div", `block ${block.type === "header" ? "header" : ""}`, ...words(block.text));
      if (block.fields) node.append(element("div", "fields", ...block.fields.map(field => element("div", "", ...words(field)))));
      return node;
    }
  }
}

function show(message) {
  const time = new Date(Number(message.ts) * 1000).toLocaleTimeString();
  const edited = message.edits ? ` · edited ${message.edits} times` : "";
  const body = message.blocks.length ? message.blocks.map(block) : [element("div", "block", ...mrkdwn(message.text))];
  const replies = (message.replies ?? []).map(reply => element("div", "replies", show(reply)));
  return element("article", "", element("header", "", `Bongsu · ${time}${edited}`), ...body, ...replies);
}

let shown = "";
async function refresh() {
  try {
    const text = await (await fetch(`${prefix}/messages.json`)).text();
    if (text !== shown) {
      shown = text;
      const channels = Object.entries(JSON.parse(text).channels);
      if (channels.length) document.getElementById("channels").replaceChildren(...channels.map(([name, messages]) =>
        element("section", "", element("h2", "", `#${name}`), ...messages.reverse().map(show))));
    }
  } catch { /* the server is gone or not there yet: the next round shows it */ }
  setTimeout(refresh, 1000);
}
refresh();
