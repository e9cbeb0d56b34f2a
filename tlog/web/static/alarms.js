// Alarms that this browser keeps of a log, as the pages of its segment show them.

import { element } from "./element.js";
import { visibleText } from "./visible.js";

const EVIDENCE = "tlog/evidence/";

/** Return an element for each alarm of what is known of a log, which may be null. */
export function shownAlarms(known) {
  return (known?.alarms ?? []).map(shownAlarm);
}

/** Say whether a text that is kept is evidence. */
export function isEvidence(text) {
  return text.startsWith(EVIDENCE);
}

function shownAlarm({ message, files, at }) {
  const when = new Date(at).toISOString().slice(0, 19).replace("T", " ");
  const kept = element("details", {}, element("summary", {}, "What this browser keeps of it: give it to others"));
  kept.append(...files.map((file) => element("pre", { class: "payload", tabindex: 0 }, visibleText(file, "\n"))));
  const explained = element("p", {}, element("a", { href: "/web/watching#kept" }, "What it means, and what to do"));
  return element(
    "div",
    { class: "notice bad", role: "alert" },
    element("p", {}, element("strong", {}, "Alarm. "), visibleText(`${message} (${when} UTC)`)),
    ...(files.some(isEvidence) ? [explained] : []),
    kept,
  );
}
