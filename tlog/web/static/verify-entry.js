// "Verify here" on the page of one entry: runs the checks, shows each, and what they found.

import { shownAlarms } from "./alarms.js";
import { decodeText, encodeHex } from "./bytes.js";
import { element } from "./element.js";
import { ENTRY_CHECKS } from "./entry-checks.js";
import { MalformedError } from "./errors.js";
import { jsonLines } from "./json.js";
import { forgetLog, keepTrust, recallLog } from "./known-log.js";
import { approachLog, outcomeOf, readTrust, rememberLog } from "./log-checks.js";
import { proofPicture } from "./proof-picture.js";
import { visibleText } from "./visible.js";

const WORDS = {
  waiting: ["…", "plain"],
  good: ["holds", "good"],
  first: ["first seen", "plain"],
  unchecked: ["not checked", "plain"],
  broken: ["broken", "bad"],
  unanswered: ["no answer", "warn"],
  unreached: ["not reached", "plain"],
};
// In the one form of a name: under another, this browser would know nothing of the log.
const ENTRY_PATH = /^\/web\/segments\/([a-z0-9][a-z0-9-]{0,62})\/entries\/([0-9]+)$/;
const MAX_HEX = 4096;
const HEX_WIDTH = 8;

/** Verify the entry that a section speaks of, and show it there. */
export async function verifyHere(section) {
  const { vkey, origin } = section.dataset;
  // What was asked for stands in the address, whatever the page says.
  const [, segment, index] = ENTRY_PATH.exec(location.pathname) ?? [];
  const view = viewOf(section);
  if (segment === undefined) {
    view.conclude("unanswered", "Not verified: the address of this page is not as links to it are written.");
    return;
  }
  const isLost = "lost" in section.dataset;
  if (globalThis.crypto?.subtle === undefined) {
    view.conclude("unanswered", "This browser verifies only over HTTPS, or where the server is on the same machine.");
    return;
  }
  const states = {};
  const found = { index: BigInt(index), isLost };
  try {
    Object.assign(found, await approachLog(segment, section.dataset));
    await runChecks(found, states, view);
    rememberLog(found, states, section.dataset);
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error;
    view.conclude("broken", `Whom to believe cannot be read: ${error.message}`);
    view.showTrust(segment, origin, recallLog(segment), vkey);
    return;
  }
  view.showVerdict(states, recallLog(segment), isLost);
  view.showTrust(segment, origin, recallLog(segment), vkey);
  view.showPicture(found, namesIn(states, "broken"));
  showPayload(found, states);
}

async function runChecks(found, states, view) {
  for (const [name, { needs, run }] of Object.entries(ENTRY_CHECKS)) {
    const missing = needs.find((need) => ["broken", "unanswered", "unreached"].includes(states[need]));
    const { state, said } = missing
      ? { state: "unreached", said: `it needs “${ENTRY_CHECKS[missing].title}”` }
      : await outcomeOf(run, found);
    states[name] = state;
    view.showCheck(name, state, said);
  }
}

function namesIn(states, state) {
  return Object.keys(states).filter((name) => states[name] === state);
}

function viewOf(section) {
  const verdict = element("p", { class: "notice", role: "status" }, "Verifying…");
  const alarms = element("div");
  const lines = Object.fromEntries(
    Object.entries(ENTRY_CHECKS).map(([name, { title }]) => [name, lineOf(name, title)]),
  );
  const trust = element("div");
  // Behind what it proves.
  const picture = document.querySelector("#proof");
  const about = element(
    "p",
    { class: "faint" },
    "Verified are the payload below, and what the checks say; all else on this page is the server's word. The scripts that " +
      "verify came from the server too: see “Verify elsewhere”.",
  );
  section.replaceChildren(
    element("h2", {}, "Verify here"),
    alarms,
    verdict,
    trust,
    element("ol", { class: "checks" }, ...Object.values(lines)),
    about,
  );
  const conclude = (state, said) => {
    verdict.className = `notice ${WORDS[state][1]}`;
    verdict.replaceChildren(visibleText(said));
  };
  return {
    conclude,
    showCheck: (name, state, said) => fillLine(lines[name], state, said),
    showVerdict: (states, known, isLost) => conclude(...verdictOf(states, known, isLost)),
    showTrust(segment, origin, known, vkey) {
      alarms.replaceChildren(...shownAlarms(known));
      trust.replaceChildren(...trustOf(section, segment, origin, known, vkey));
    },
    showPicture: (found, broken) => picture.replaceChildren(element("h2", {}, "Proof"), proofPicture(found, broken)),
  };
}

function verdictOf(states, known, isLost) {
  const broken = namesIn(states, "broken").map((name) => ENTRY_CHECKS[name].title);
  if (broken.length) return ["broken", `Not what the log signed. It breaks at: ${broken.join(", ")}.`];
  const unanswered = namesIn(states, "unanswered").map((name) => ENTRY_CHECKS[name].title);
  if (unanswered.length) return ["unanswered", `Not verified: there is no answer for ${unanswered.join(", ")}.`];
  if (known?.alarms) return ["unanswered", "These checks hold; but see the alarm."];
  if (isLost) return ["unanswered", "The entry is in the log; of its payload, which was lost, nothing is verified."];
  const under = known?.isGiven ? "by a key that you gave" : "by the key that the server showed";
  return ["good", `Verified: this event is in the log as it was written, under a root signed ${under}.`];
}

function lineOf(name, title) {
  const line = element(
    "li",
    { "data-check": name },
    element("strong", {}, title),
    element("span", { class: "badge" }),
    element("span", { class: "said" }),
  );
  fillLine(line, "waiting", "");
  return line;
}

function fillLine(line, state, said) {
  const [, badge, text] = line.children;
  const [word, kind] = WORDS[state];
  line.dataset.state = state;
  badge.className = `badge ${kind}`;
  badge.textContent = word;
  text.textContent = visibleText(said);
}

function trustOf(section, segment, origin, known, vkey) {
  const since = known?.since ? new Date(known.since).toISOString().slice(0, 10) : null;
  const said = known?.isGiven
    ? `Believed: the key or trust policy that you gave on ${since}.`
    : `This key was shown by the server itself${since ? `, first on ${since}, and this browser has kept it since` : ""}: compare it with the one that you were given, or paste that.`;
  const field = element("textarea", { id: "trust", name: "trust", rows: 3, spellcheck: "false", autocomplete: "off" });
  field.value = known?.trusted ?? vkey;
  const refusal = element("p", { class: "bad", role: "alert" });
  const form = element(
    "form",
    { class: "stack" },
    element("label", { for: "trust" }, "Verifier key, or a trust policy"),
    field,
    refusal,
    element("button", {}, "Believe this"),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await readTrust(field.value, origin);
    } catch (error) {
      refusal.textContent = visibleText(error.message);
      return;
    }
    keepTrust(segment, field.value, true);
    await verifyHere(section);
  });
  const forget = element("button", { type: "button", class: "quiet" }, "Forget what this browser knows of this log");
  forget.addEventListener("click", () => {
    forgetLog(segment);
    verifyHere(section);
  });
  return [element("details", {}, element("summary", {}, said), form, forget)];
}

// What was verified is shown in the place of what the server had put there, where that reads otherwise.
function showPayload(found, states) {
  const place = document.getElementById("payload");
  if (!place) return;
  if (!found.payload) {
    place.classList.add("unverified");
    return;
  }
  const isGood = ["payload", "commitment", "leaf", "checkpoint", "inclusion"].every((name) => states[name] === "good");
  place.classList.add(isGood ? "verified" : "unverified");
  const text = visibleText(readable(found), "\n");
  if (readsAs(place.textContent, text)) return;
  // Browsers lay out a long run of many scripts in quadratic time.
  const runs = text.match(/[^]{1,4096}/g) ?? [];
  place.replaceChildren(...runs.map((run) => element("span", {}, run)));
  const said = "The server had put something else here. This is what the browser was given to verify.";
  place.before(element("p", { class: "notice warn", role: "alert" }, said));
}

// What one side knows as a character may be unassigned to the other, which then shows its code point.
function readsAs(shown, text) {
  return visibleText(shown, "\n") === shown && named(shown) === named(text);
}

function named(text) {
  return text.replace(/[\u0080-\u{10ffff}]/gu, (one) => `[U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);
}

function readable({ isJson, payload, payloadType }) {
  if (isJson) return jsonLines(decodeText(payload, "JSON"));
  try {
    if (payloadType.toLowerCase().startsWith("text/")) return decodeText(payload, "text");
  } catch {
    // Then it is shown as bytes.
  }
  return hexLines(payload.subarray(0, MAX_HEX));
}

function hexLines(payload) {
  const lines = [];
  for (let place = 0; place < payload.length; place += HEX_WIDTH) {
    const part = payload.subarray(place, place + HEX_WIDTH);
    const letters = Array.from(part, (byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "·")).join("");
    const bytes = encodeHex(part)
      .replace(/..(?!$)/g, "$& ")
      .padEnd(3 * HEX_WIDTH - 1);
    lines.push(`${place.toString(16).padStart(6, "0")}  ${bytes}  ${letters}`);
  }
  return lines.join("\n");
}

for (const section of document.querySelectorAll("#verify")) verifyHere(section);
