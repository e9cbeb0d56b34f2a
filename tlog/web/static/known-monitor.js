// What this browser knows of a monitor, by its name: its key as first seen, another that was shown, and its last bulletins.

const KNOWN = "tlog/monitor/v1 ";

/** Return the names of the monitors of which something is known. */
export function recallMonitors() {
  try {
    const places = Object.keys(localStorage).filter((place) => place.startsWith(KNOWN));
    return places.map((place) => place.slice(KNOWN.length));
  } catch {
    return [];
  }
}

/** Return { vkey, since, seen, others }, or null at first sight: `seen` has by segment the time of the latest bulletin. */
export function recallMonitor(name) {
  try {
    return JSON.parse(localStorage.getItem(placeOf(name)));
  } catch {
    return null;
  }
}

/** Return the time, a BigInt, of the latest bulletin that was seen of a segment, or null. */
export function lastSeen(known, segment) {
  return known && Object.hasOwn(known.seen, segment) ? BigInt(known.seen[segment]) : null;
}

/** Keep the key of a monitor if there is none yet, and that a bulletin of this time, a BigInt, was seen of a segment. */
export function keepMonitor({ name, vkey }, segment, time) {
  const known = recallMonitor(name) ?? { vkey, since: Date.now(), seen: {}, others: [] };
  keep(name, { ...known, seen: { ...known.seen, [segment]: String(time) } });
}

/** Keep that another key was shown under the name of a monitor whose key is known. */
export function keepOtherKey(name, vkey) {
  const known = recallMonitor(name);
  if (!known.others.includes(vkey)) keep(name, { ...known, others: [...known.others, vkey] });
}

export function forgetMonitor(name) {
  localStorage.removeItem(placeOf(name));
}

function keep(name, known) {
  try {
    localStorage.setItem(placeOf(name), JSON.stringify(known));
  } catch {
    // It keeps nothing here: then each sight is the first.
  }
}

function placeOf(name) {
  return KNOWN + name;
}
