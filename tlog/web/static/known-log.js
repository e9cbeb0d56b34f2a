// What this browser knows of the log of a segment: the key that it first saw or was given, and the last head that it verified.
//
// It is kept by the segment's place at this server, not by what the server says of itself: so a changed key or origin is seen.

const KNOWN = "tlog/known/v1 ";

/** Return { trusted, isGiven, since, head, seen, alarms }, or null at the first visit, or where nothing can be kept. */
export function recallLog(segment) {
  try {
    return JSON.parse(localStorage.getItem(placeOf(segment)));
  } catch {
    return null;
  }
}

/** Keep that this trust, the text of a vkey or of a trust policy, is the one for a segment. */
export function keepTrust(segment, trusted, isGiven) {
  keep(segment, { ...recallLog(segment), trusted, isGiven, since: Date.now() });
}

/** Keep a head that was verified, the text of its note, if it is larger than the one kept. */
export function keepHead(segment, head, size) {
  const known = recallLog(segment);
  if (known && !(known.size >= Number(size))) keep(segment, { ...known, head, size: Number(size), seen: Date.now() });
}

/** Keep what proves, or makes likely, that the log lies; it is shown until the log is forgotten. */
export function keepAlarm(segment, message, files) {
  const known = recallLog(segment);
  const alarms = known?.alarms ?? [];
  if (alarms.some((alarm) => alarm.message === message)) return;
  keep(segment, { ...known, alarms: [...alarms, { message, files, at: Date.now() }] });
}

export function forgetLog(segment) {
  localStorage.removeItem(placeOf(segment));
}

/** Return [segment, what is known of its log] of each segment of which something is. */
export function recallLogs() {
  try {
    const places = Object.keys(localStorage).filter((place) => place.startsWith(KNOWN));
    return places.map((place) => place.slice(KNOWN.length)).map((segment) => [segment, recallLog(segment)]);
  } catch {
    return [];
  }
}

function keep(segment, known) {
  try {
    localStorage.setItem(placeOf(segment), JSON.stringify(known));
  } catch {
    // It keeps nothing here: then each visit is the first, which the page says.
  }
}

function placeOf(segment) {
  return KNOWN + segment;
}
