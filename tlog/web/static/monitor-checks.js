// What a page checks of a monitor: that its bulletin is its own, the latest that was shown here, and of a head that fits.

import { openBulletin } from "./bulletin.js";
import { encodeBase64, encodeText, equalBytes } from "./bytes.js";
import { MalformedError, RefusedError } from "./errors.js";
import { keepMonitor, keepOtherKey, lastSeen, recallMonitor } from "./known-monitor.js";
import { faultOf } from "./log-checks.js";
import { parseVerifier } from "./note.js";
import { shownTime } from "./times.js";

/**
 * Check what a server shows of the monitor `vkey`: `note`, undefined if it shows none, of the log of a segment.
 *
 * Return { state, said, bulletin }: the state is good, none or broken, the bulletin null if it is not the monitor's. The key
 * is kept at first sight, under the monitor's name.
 */
export async function checkBulletin({ vkey, note, segment, origin }) {
  const [name] = vkey.split("+");
  const known = recallMonitor(name);
  if (known && known.vkey !== vkey) keepOtherKey(name, vkey);
  const last = lastSeen(known, segment);
  if (note === undefined) return withheld(last);
  try {
    const bulletin = await openBulletin(encodeText(note), await parseVerifier(known?.vkey ?? vkey));
    if (bulletin.origin !== origin) throw new RefusedError(`it speaks of ${bulletin.origin}, not of ${origin}`, "bulletin");
    if (last > bulletin.time) return { state: "broken", said: `an old one: a later one, of ${shownTime(last)}, was shown here before`, bulletin };
    keepMonitor(name, vkey, segment, bulletin.time);
    return { state: "good", said: "signed by this monitor, verified here", bulletin };
  } catch (error) {
    if (!(error instanceof MalformedError || error instanceof RefusedError)) throw error;
    return { state: "broken", said: error.message, bulletin: null };
  }
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
