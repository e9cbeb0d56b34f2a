// What monitors say of all segments, on the page "Watching": each bulletin verified, and what they found among the findings.

import { element } from "./element.js";
import { MalformedError } from "./errors.js";
import { recallLog } from "./known-log.js";
import { readTrust } from "./log-checks.js";
import { badge, keyAlarms } from "./monitor-cells.js";
import { checkBulletin } from "./monitor-checks.js";
import { accuses, findingWords, isLate } from "./monitor-words.js";
import { shownAge } from "./times.js";
import { visibleText } from "./visible.js";

const section = document.getElementById("monitors");

async function verifyCell(cell) {
  const { segment, origin, vkey } = cell.closest("tr").dataset;
  const { monitor, note } = cell.dataset;
  const found = await outcome(segment, { origin, vkey }, { vkey: monitor, note });
  cell.replaceChildren(element("span", {}, ...partsOf(found)));
  return findingsOf(segment, monitor.split("+")[0], found);
}

async function outcome(segment, shown, { vkey, note }) {
  try {
    const trust = await readTrust(recallLog(segment)?.trusted ?? shown.vkey, shown.origin);
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

function findingsOf(segment, name, { state, said, bulletin }) {
  const broken = finding(segment, " shows a bulletin that does not hold, of ", name, said);
  if (!bulletin || !accuses(bulletin)) return state === "broken" ? [broken] : [];
  const more = `Said ${shownAge(bulletin.time)}, ${said}. It proves nothing by itself: ask the monitor for its evidence, and bring that here.`;
  const accused = finding(segment, " is accused by ", name, findingWords(bulletin).join(", "));
  accused.append(element("p", { class: "faint" }, visibleText(more)));
  return [accused];
}

function finding(segment, words, name, said) {
  const link = element("a", { href: `/web/segments/${segment}` }, segment);
  const head = element("strong", {}, link, words, element("bdi", {}, visibleText(name)), ":");
  return element("div", { class: "notice bad finding" }, element("p", {}, head, ` ${visibleText(said)}`));
}

async function verifyAll() {
  const cells = [...section.querySelectorAll("td[data-monitor]")];
  const findings = (await Promise.all(cells.map(verifyCell))).flat();
  document.getElementById("monitor-findings").replaceChildren(...keyAlarms(cells.map((cell) => cell.dataset.monitor)), ...findings);
  const nothing = document.getElementById("nothing");
  if (nothing) nothing.hidden ||= document.querySelector("#monitor-findings > *") !== null;
  section.querySelector(".words").textContent =
    "Signatures are checked by the keys that this browser saw first. Heads are compared on the page of a segment.";
}

if (section && globalThis.crypto?.subtle !== undefined) await verifyAll();
