// Files on the page "Watching": chosen or dropped, examined here, and explained.

import { isEvidence } from "./alarms.js";
import { decodeText, encodeBase64, encodeText } from "./bytes.js";
import { examine, kindOf, MAX_FILE_BYTES } from "./brought.js";
import { element } from "./element.js";
import { keepAlarm, recallLogs } from "./known-log.js";
import { isShown, segmentOf } from "./trusted.js";
import { visibleText } from "./visible.js";

const [zone, chooser, trust, policy, results, kept] = ["drop", "files", "trust", "policy", "results", "kept"].map((id) =>
  document.getElementById(id),
);

const ADOPTED = "What you bring from now on is judged by this trust policy.";

zone.hidden = trust.hidden = false;
chooser.addEventListener("change", async () => {
  await receive([...chooser.files]);
  chooser.value = "";
});
// Wherever it falls: a browser would leave the page to show it.
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    zone.classList.toggle("over", name === "dragenter" || name === "dragover");
  });
}
document.addEventListener("drop", (event) => receive([...event.dataTransfer.files]));

async function receive(files) {
  const read = await Promise.all(files.map(readFile));
  const given = read.find(({ raw }) => raw && kindOf(raw) === "policy");
  if (given) {
    policy.value = new TextDecoder().decode(given.raw);
    trust.open = true;
  }
  const others = read.filter((one) => one !== given);
  const found = await Promise.all(others.map(async ({ name, raw }) => shownFile(name, await judged(raw, policy.value))));
  if (found.length === 0 && given) found.push(element("p", { class: "notice", tabindex: "-1" }, ADOPTED));
  results.prepend(...found);
  found[0]?.focus();
}

async function judged(raw, given) {
  const found = await outcome(raw, given);
  if (found.convicts && (await isOurs(raw, found))) {
    keepAlarm(segmentOf(found.convicts), `Evidence proves it: ${found.said}`, [decodeText(raw, "evidence")]);
  }
  return found;
}

// Whatever policy was given: one that came with the file may have any key under the origin of a log of this server.
async function isOurs(raw, { convicts }) {
  const again = await outcome(raw, "");
  return again.convicts === convicts && isShown(convicts);
}

async function showKept() {
  const alarms = recallLogs().flatMap(([segment, known]) => (known?.alarms ?? []).map((alarm) => ({ segment, ...alarm })));
  for (const { segment, files, at } of alarms) {
    const name = `kept by this browser of ${segment} since ${new Date(at).toISOString().slice(0, 10)}`;
    for (const file of files.filter(isEvidence)) kept.append(shownFile(name, await outcome(encodeText(file), "")));
  }
  const nothing = document.getElementById("nothing");
  if (nothing) nothing.hidden ||= kept.firstChild !== null;
}

async function readFile(file) {
  try {
    // More is not read: it is refused for its size.
    return { name: file.name, raw: new Uint8Array(await file.slice(0, MAX_FILE_BYTES + 1).arrayBuffer()) };
  } catch {
    return { name: file.name, raw: null };
  }
}

async function outcome(raw, given) {
  if (raw === null) return failure("This file cannot be read", "the browser does not give it; is it a folder?");
  if (globalThis.crypto?.subtle === undefined) {
    return failure("This browser verifies nothing here", "it does so over HTTPS only, or where the server is on the same machine");
  }
  try {
    const { witnesses, monitors } = zone.dataset;
    return await examine(raw, { given, witnesses, monitors: monitors.split(" ") });
  } catch (error) {
    return failure("This could not be verified", `the keys were not to be had: ${error.message}`);
  }
}

function failure(title, said) {
  return { tone: "warn", title, said, facts: [], heads: [], todo: [] };
}

function shownFile(name, { tone, title, said, facts, heads, means, todo }) {
  return element(
    "article",
    { class: `notice ${tone} brought`, tabindex: "-1", "aria-label": title },
    element("h3", {}, title),
    element("p", { class: "faint" }, isolated(name)),
    element("p", { class: "said" }, isolated(said)),
    ...(heads.length ? [headTable(heads)] : []),
    ...(facts.length ? [element("dl", { class: "facts" }, ...facts.map(shownFact))] : []),
    ...(means ? [element("h4", {}, "What it means"), element("p", {}, means)] : []),
    ...(todo.length ? [element("h4", {}, "What to do"), element("ul", {}, ...todo.map((one) => element("li", {}, one)))] : []),
  );
}

function shownFact([name, value]) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, isolated(value)));
}

function headTable(heads) {
  const rows = heads.map(({ head, cosigned, verb }, place) => [
    `${place + 1}. ${verb}`,
    head.size.toLocaleString("en"),
    encodeBase64(head.root),
    cosigned.join("; ") || "no known witness",
  ]);
  return table(["Statement", "Size", "Root", "Cosigned"], rows);
}

function table(names, rows) {
  const head = element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)));
  const lines = rows.map(([first, ...rest]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, isolated(first)),
      ...rest.map((value, place) => element("td", { "data-name": names[place + 1] }, isolated(value))),
    ),
  );
  return element("div", { class: "wide" }, element("table", { class: "cards" }, element("thead", {}, head), element("tbody", {}, ...lines)));
}

function isolated(text) {
  return element("bdi", {}, visibleText(text));
}

showKept();
