// What is shown of monitors on more than one page.

import { element } from "./element.js";
import { forgetMonitor, recallMonitor } from "./known-monitor.js";
import { visibleText } from "./visible.js";

/** Return a badge. */
export function badge(kind, text) {
  return element("span", { class: `badge ${kind}` }, visibleText(text));
}

/** Return an alarm, which begins with words of ours. */
export function alarm(said, ...more) {
  return element("div", { class: "notice bad", role: "alert" }, element("p", {}, element("strong", {}, "Alarm. "), visibleText(said)), ...more);
}

/** Return an alarm for each other key that was shown under the names of monitors, whose keys these are. */
export function keyAlarms(vkeys) {
  const names = [...new Set(vkeys.map((vkey) => vkey.split("+")[0]))];
  return names.flatMap((name) => (recallMonitor(name)?.others ?? []).map((other) => keyAlarm(name, other)));
}

function keyAlarm(name, other) {
  const forget = element("button", { type: "button" }, "Forget what this browser knows of this monitor");
  forget.addEventListener("click", () => {
    forgetMonitor(name);
    location.reload();
  });
  const keys = [recallMonitor(name).vkey, other].map((vkey) => element("p", { class: "hash" }, visibleText(vkey)));
  const todo = element("p", {}, "Ask who runs the monitor which of them is its own. Until then it is held to the first.");
  return alarm(`The server shows another key of the monitor ${name} than the one of before. First and second:`, ...keys, todo, forget);
}
