// What a page checks of a monitor: that its bulletin is its own, the latest that was shown here, and of a head that fits.

import { openBulletin } from "./bulletin.js";
import { encodeBase64, encodeText, equalBytes } from "./bytes.js";
import { MalformedError, RefusedError } from "./errors.js";
import { keepMonitor, keepOtherKey, lastSeen, recallMonitor } from "./known-monitor.js";
import { faultOf } from "./log-checks.js";
import { parseVerifier } from "./note.js";
import { shownTime } from "./times.js";

const MAX_AHEAD = 300_000n;

/**
 * Check what a server shows of a monitor, { vkey, note, segment, origin }: the note is undefined if it shows none.
 *
 * Return { state, said, bulletin }: the state is good, none or broken, the bulletin null if it is not the monitor's. The key
 * is kept at first sight, under the monitor's name.
 */
export async function checkBulletin(shown) {
  try {
    const key = await parseVerifier(shown.vkey);
    const known = recallMonitor(key.name);
    if (known && known.vkey !== shown.vkey) keepOtherKey(key.name, shown.vkey);
    const last = lastSeen(known, shown.segment);
    if (shown.note === undefined) return withheld(last);
    return await checkShown(shown, known ? await parseVerifier(known.vkey) : key, last);
  } catch (error) {
    if (!(error instanceof MalformedError || error instanceof RefusedError)) throw error;
    return { state: "broken", said: error.message, bulletin: null };
  }
}

async function checkShown({ note, segment, origin }, key, last) {
  const bulletin = await openBulletin(encodeText(note), key);
  // A trust policy may have other segments of the log too, and which of them this is the page says.
  if (bulletin.origin !== origin || !origin.endsWith(`/segments/${segment}`)) {
    throw new RefusedError(`it speaks of ${bulletin.origin}, not of the log of ${segment}`, "bulletin");
  }
  const fault = faultOfTime(bulletin, last);
  if (fault !== null) return { state: "broken", said: fault, bulletin };
  keepMonitor(key, segment, bulletin.time);
  return { state: "good", said: "signed by this monitor, verified here", bulletin };
}

function faultOfTime({ time }, last) {
  // It would be fresh for as long as its time is to come.
  if (time > BigInt(Date.now()) + MAX_AHEAD) return `signed at ${shownTime(time)}, which is still to come; are the clocks right?`;
  return last > time ? `an old one: a later one, of ${shownTime(last)}, was shown here before` : null;
}

function withheld(last) {
  return last === null
    ? { state: "none", said: "no bulletin so far", bulletin: null }
    : { state: "broken", said: `none, where one of ${shownTime(last)} was shown here before`, bulletin: null };
}

/** Check that the head of a bulletin and that of the log, as this browser verified it, are of one history; raise RefusedError. */
export async function compareHead({ head: { size, root }, readProof }, { head }) {
  if (head === null) return "it has verified no head yet";
  if (head.size > size) throw contradiction(`it verified ${counted(head.size)} entries, and this log shows ${counted(size)}`);
  if (head.size === size) {
    if (equalBytes(head.root, root)) return "its head is the one that was verified here";
    const roots = `${encodeBase64(head.root)}, and here ${encodeBase64(root)}`;
    throw contradiction(`this log showed it another history: of ${counted(size)} entries the root ${roots}`);
  }
  const proof = head.size === 0n ? [] : await readProof(`proof/consistency/${head.size}/${size}`);
  const why = await faultOf(head, { size, root }, proof);
  if (why !== null) throw contradiction(`this log showed it another history: ${why}`);
  return `the ${counted(head.size)} entries that it verified are the first of those verified here`;
}

function contradiction(why) {
  return new RefusedError(`${why}; ask the monitor for its evidence`, "bulletin");
}

function counted(number) {
  return number.toLocaleString("en");
}
