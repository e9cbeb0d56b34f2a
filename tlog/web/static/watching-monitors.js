// What monitors say of all segments, on the page "Watching": each bulletin verified, and what they found among the findings.

import { element } from "./element.js";
import { MalformedError } from "./errors.js";
import { recallLog } from "./known-log.js";
import { trustOf } from "./log-checks.js";
import { badge, goneAlarms, keyAlarms, nameOf } from "./monitor-cells.js";
import { checkBulletin } from "./monitor-checks.js";
import { accuses, findingWords, gossipWords, isLate } from "./monitor-words.js";
import { shownAge } from "./times.js";
import { visibleText } from "./visible.js";

/** How many cells of a row come before those of monitors. */
const BEFORE = 2;
const section = document.getElementById("monitors");

async function verifyRow(row, vkeys) {
  row.cells[0].replaceChildren(linkTo(row.dataset.segment));
  const outcomes = [];
  // One after another: of two keys of one name the first is kept, and the second seen to be another.
  for (const [place, vkey] of vkeys.entries()) outcomes.push(await verifyCell(row.cells[place + BEFORE], row, vkey));
  return outcomes;
}

async function verifyCell(cell, row, vkey) {
  const found = await outcome(row.dataset.segment, row.dataset, { vkey, note: cell.dataset.note });
  cell.replaceChildren(element("span", {}, ...partsOf(found)));
  cell.dataset.name = visibleText(nameOf(vkey));
  return { vkey, segment: row.dataset.segment, ...found };
}

async function outcome(segment, shown, { vkey, note }) {
  try {
    const trust = await trustOf(recallLog(segment), shown);
    return await checkBulletin({ vkey, note, segment, origin: trust.origin });
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error;
    return { state: "broken", said: error.message, bulletin: null };
  }
}

function partsOf({ state, said, bulletin }) {
  if (state === "none") return [badge("plain", "none")];
  if (state === "broken") return [badge("bad", "broken"), " ", visibleText(said)];
  const size = bulletin.head ? bulletin.head.size.toLocaleString("en") : "no head";
  const kind = accuses(bulletin) ? "bad" : isLate(bulletin) || bulletin.tallies.length ? "warn" : "good";
  const words = [...(isLate(bulletin) ? ["late"] : []), ...findingWords(bulletin)].join(", ");
  return [badge(kind, size), " ", shownAge(bulletin.time), ...(words ? [`: ${words}`] : [])];
}

function findingsOf({ vkey, segment, state, said, bulletin }) {
  const name = nameOf(vkey);
  const broken = finding(segment, " shows a bulletin that does not hold, of ", name, said);
  if (!bulletin || !accuses(bulletin)) return state === "broken" ? [broken] : [];
  const more = `Said ${shownAge(bulletin.time)}, ${said}. It proves nothing by itself: ask the monitor for its evidence, and bring that here.`;
  // Its evidence may be against a witness.
  const words = bulletin.convicted ? " is accused by " : ", or a witness of it, is accused by ";
  const accused = finding(segment, words, name, findingWords(bulletin).join(", "));
  accused.append(element("p", { class: "faint" }, visibleText(more)));
  return [accused];
}

function finding(segment, words, name, said) {
  const head = element("strong", {}, linkTo(segment), words, element("bdi", {}, visibleText(name)), ":");
  return element("div", { class: "notice bad finding" }, element("p", {}, head, ` ${visibleText(said)}`));
}

function linkTo(segment) {
  return element("a", { href: `/web/segments/${segment}` }, visibleText(segment));
}

async function verifyAll() {
  const columns = [...section.querySelectorAll("th[data-monitor]")];
  const vkeys = columns.map((column) => column.dataset.monitor);
  columns.forEach((column, place) => column.replaceChildren(element("bdi", {}, visibleText(nameOf(vkeys[place])))));
  const outcomes = [];
  for (const row of section.querySelectorAll("tbody tr")) outcomes.push(...(await verifyRow(row, vkeys)));
  section.querySelector(".words").textContent =
    "Signatures are checked by the keys that this browser saw first. Heads are compared on the page of a segment.";
  document.getElementById("monitor-findings").replaceChildren();
  showFindings([...goneAlarms(vkeys), ...keyAlarms(vkeys), ...outcomes.flatMap(findingsOf)]);
  showGossip(vkeys, outcomes);
}

// A monitor's gossip is the same of whatever log it speaks: its latest bulletin says it.
function showGossip(vkeys, outcomes) {
  const { cells } = section.querySelector("tfoot tr");
  for (const [place, vkey] of vkeys.entries()) {
    const held = outcomes.filter((one) => one.vkey === vkey && one.state === "good").map(({ bulletin }) => bulletin);
    const latest = held.reduce((one, other) => (one && one.time > other.time ? one : other), null);
    cells[place + BEFORE].dataset.name = visibleText(nameOf(vkey));
    cells[place + BEFORE].replaceChildren(element("span", {}, latest ? gossipWords(latest) : "—"));
  }
}

function showFindings(findings) {
  document.getElementById("monitor-findings").append(...findings);
  const nothing = document.getElementById("nothing");
  if (nothing) nothing.hidden ||= findings.length > 0;
}

// Who is shown no segment is shown no monitor in a table either, but the keys for files.
if (section === null) showFindings(goneAlarms(document.getElementById("drop").dataset.monitors.split(" ")));
else if (globalThis.crypto?.subtle !== undefined) await verifyAll();
