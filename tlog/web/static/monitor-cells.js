// What is shown of monitors on more than one page.

import { element } from "./element.js";
import { forgetMonitor, lastSeen, recallMonitor, recallMonitors } from "./known-monitor.js";
import { visibleText } from "./visible.js";

/** Return a badge. */
export function badge(kind, text) {
  return element("span", { class: `badge ${kind}` }, visibleText(text));
}

/** Return an alarm, which begins with words of ours. */
export function alarm(said, ...more) {
  return element("div", { class: "notice bad", role: "alert" }, element("p", {}, element("strong", {}, "Alarm. "), visibleText(said)), ...more);
}

/** Return the name of a monitor, which its key has, whatever a page says. */
export function nameOf(vkey) {
  return vkey.split("+")[0];
}

/** Return an alarm for each other key that was shown under the names of monitors, whose keys these are. */
export function keyAlarms(vkeys) {
  const names = [...new Set(vkeys.map(nameOf))];
  return names.flatMap((name) => (recallMonitor(name)?.others ?? []).map((other) => keyAlarm(name, other)));
}

/** Return an alarm for each monitor that this browser saw speak, of a segment if one is given, and whose key is not among these. */
export function goneAlarms(vkeys, segment) {
  const shown = vkeys.map(nameOf);
  const spoke = (name) => segment === undefined || lastSeen(recallMonitor(name), segment) !== null;
  return recallMonitors().filter((name) => !shown.includes(name) && spoke(name)).map(goneAlarm);
}

function goneAlarm(name) {
  const said = `The monitor ${name}, which spoke here before, is shown no more. Ask it what it found; and who operates the log, why.`;
  return alarm(said, forgetButton(name));
}

function forgetButton(name) {
  const forget = element("button", { type: "button" }, "Forget what this browser knows of this monitor");
  forget.addEventListener("click", () => {
    forgetMonitor(name);
    location.reload();
  });
  return forget;
}

function keyAlarm(name, other) {
  const keys = [recallMonitor(name).vkey, other].map((vkey) => element("p", { class: "hash" }, visibleText(vkey)));
  const todo = element("p", {}, "Ask who runs the monitor which of them is its own. Until then it is held to the first.");
  return alarm(`The server shows another key of the monitor ${name} than the one of before. First and second:`, ...keys, todo, forgetButton(name));
}
