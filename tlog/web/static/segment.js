// The page of a segment: what this browser keeps against its log, and what monitors say of it, verified.

import { shownAlarms } from "./alarms.js";
import { element } from "./element.js";
import { MalformedError } from "./errors.js";
import { forgetLog, recallLog } from "./known-log.js";
import { approachLog, checkCheckpoint, checkHistory, outcomeOf, rememberLog } from "./log-checks.js";
import { alarm, badge, keyAlarms } from "./monitor-cells.js";
import { checkBulletin, compareHead } from "./monitor-checks.js";
import { accuses, findingWords, gossipWords, isLate } from "./monitor-words.js";
import { shownAge } from "./times.js";
import { visibleText } from "./visible.js";

// In the one form of a name: under another, this browser would know nothing of the log.
const SEGMENT_PATH = /^\/web\/segments\/([a-z0-9][a-z0-9-]{0,62})$/;
const [place, section] = ["alarms", "monitors"].map((id) => document.getElementById(id));
const [, segment] = SEGMENT_PATH.exec(location.pathname) ?? [];
const STATES = { good: ["good", "holds"], none: ["plain", "none"], broken: ["bad", "broken"], unanswered: ["warn", "not compared"] };

/** Read the head of the log and check it; return { found, head, history }, what the checks said. */
async function verifyHead() {
  const found = await approachLog(segment, place.dataset);
  const head = await outcomeOf(checkCheckpoint, found);
  const history = head.state === "good" ? await outcomeOf(checkHistory, found) : head;
  rememberLog(found, { checkpoint: head.state, consistency: history.state }, place.dataset);
  return { found, head, history };
}

async function verifyMonitors(log) {
  const rows = [...section.querySelectorAll("tr[data-vkey]")];
  const alarms = await Promise.all(rows.map((row) => verifyMonitor(row, log)));
  const { history } = log;
  const isHeld = ["good", "first"].includes(history.state);
  const compared = isHeld
    ? `Heads are compared with that of ${log.found.head.size.toLocaleString("en")} entries, which was verified here.`
    : `The head of this log does not hold, or was not to be had, so nothing is compared with it: ${history.said}.`;
  section.querySelector(".words").textContent = visibleText(`Signatures are checked by the keys that this browser saw first. ${compared}`);
  section.querySelector(".alarms").replaceChildren(...keyAlarms(rows.map((row) => row.dataset.vkey)), ...alarms.flat());
}

async function verifyMonitor(row, log) {
  const { vkey, note } = row.dataset;
  const [name] = vkey.split("+");
  const own = await checkBulletin({ vkey, note, segment, origin: log.found.trust.origin });
  const fits = own.bulletin && (await compared(own.bulletin, log));
  showRow(row, own, fits);
  const broken = [own, fits].filter((one) => one?.state === "broken");
  return broken.map(({ said }) => alarm(`${name}: ${said}`));
}

async function compared(bulletin, log) {
  if (!["good", "first"].includes(log.history.state)) return { state: "unanswered", said: "there is no head to compare with" };
  // The page may be older than what the monitor has seen.
  const latest = bulletin.head?.size > log.found.head.size ? await verifyHead() : log;
  if (!["good", "first"].includes(latest.history.state)) return latest.history;
  return outcomeOf((found) => compareHead(found, bulletin), latest.found);
}

function showRow(row, own, fits) {
  const { bulletin } = own;
  const cells = Object.fromEntries([...row.cells].map((cell) => [cell.dataset.name, cell]));
  const state = [own, fits].find((one) => one?.state === "broken")?.state ?? fits?.state ?? own.state;
  const said = [own, fits].filter(Boolean).map((one) => one.said);
  // When it was received is what the server says, and stays.
  const show = (name, ...parts) => cells[name].querySelector("span").replaceChildren(...parts);
  show("Signed", ...(bulletin ? signedParts(bulletin) : ["—"]));
  show("Verified size", bulletin?.head ? bulletin.head.size.toLocaleString("en") : bulletin ? "none yet" : "—");
  show("Gossip", bulletin ? gossipWords(bulletin) : "—");
  show("Findings", ...(bulletin ? findingParts(bulletin) : ["—"]));
  show("Verified here", badge(...STATES[state]), " ", visibleText(said.join("; ")));
}

function signedParts(bulletin) {
  return [shownAge(bulletin.time), ...(isLate(bulletin) ? [" ", badge("warn", "late")] : [])];
}

function findingParts(bulletin) {
  const words = findingWords(bulletin);
  return words.length ? [badge(accuses(bulletin) ? "bad" : "warn", words[0]), " ", words.slice(1).join(", ")] : ["none"];
}

function showAlarms() {
  const known = recallLog(segment);
  const forget = element("button", { type: "button", class: "quiet" }, "Forget what this browser knows of this log");
  forget.addEventListener("click", () => {
    forgetLog(segment);
    location.reload();
  });
  place.replaceChildren(...shownAlarms(known), ...(known?.alarms ? [forget] : []));
}

async function verify() {
  const words = section.querySelector(".words");
  if (globalThis.crypto?.subtle === undefined) {
    words.textContent = "As this server tells it: this browser verifies only over HTTPS, or where the server is on the same machine.";
    return;
  }
  try {
    await verifyMonitors(await verifyHead());
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error;
    words.textContent = visibleText(`As this server tells it: whom to believe cannot be read: ${error.message}`);
  }
}

if (segment !== undefined) {
  showAlarms();
  if (section) await verify();
  // What the checks found is kept too.
  showAlarms();
}
