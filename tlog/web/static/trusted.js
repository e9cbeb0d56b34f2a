// By whose keys a file is judged: those of a trust policy that one gave, of what this browser keeps, or of this server.

import { encodeText } from "./bytes.js";
import { RefusedError } from "./errors.js";
import { recallLog } from "./known-log.js";
import { recallMonitor } from "./known-monitor.js";
import { parseVerifier } from "./note.js";
import { parsePolicy } from "./policy.js";

const SEGMENT_OF_ORIGIN = /\/segments\/([a-z0-9][a-z0-9-]{0,62})$/;
const GIVE_POLICY = "give a trust policy that has it";

/**
 * Return { policy, isQuorum, words }: a trust policy for the log of an origin, whether its quorum was chosen, and by whom.
 *
 * `given` is the text of a trust policy, or empty; `witnesses` what this server says of its own. Raises MalformedError if a
 * policy cannot be read, RefusedError if there is none for the origin.
 */
export async function trustFor(origin, { given, witnesses }) {
  if (given.trim()) return readTrusted(given, "the trust policy that you gave");
  const segment = segmentOf(origin);
  const known = segment && recallLog(segment)?.trusted;
  if (known && /\s/.test(known.trim())) return readTrusted(known, "the trust policy that this browser keeps");
  if (known?.startsWith(`${origin}+`)) return keyTrusted(known, witnesses, "the key that this browser keeps of the segment");
  const shown = segment && (await shownKey(segment));
  if (!shown?.startsWith(`${origin}+`)) {
    throw new RefusedError(`this server shows you no segment of the log ${origin}; ${GIVE_POLICY}`, "trust");
  }
  return keyTrusted(shown, witnesses, "the key that this server shows of the segment, which is its own word");
}

/** Return the segment that a log of this server would have under an origin, or undefined. */
export function segmentOf(origin) {
  return SEGMENT_OF_ORIGIN.exec(origin)?.[1];
}

/** Say whether this server shows a segment of the log of an origin. */
export async function isShown(origin) {
  const segment = segmentOf(origin);
  const shown = segment && (await shownKey(segment).catch(() => undefined));
  return shown?.startsWith(`${origin}+`) ?? false;
}

/** Return { key, words } of a monitor, of `monitors`, the vkeys that this server shows, if none is kept; raise RefusedError. */
export async function monitorKey(name, monitors) {
  const known = recallMonitor(name);
  if (known) return { key: await parseVerifier(known.vkey), words: "the key that this browser keeps of the monitor" };
  const shown = monitors.find((vkey) => vkey.startsWith(`${name}+`));
  if (!shown) throw new RefusedError(`this server shows no monitor ${name}`, "trust");
  return { key: await parseVerifier(shown), words: "the key that this server shows of the monitor, which is its own word" };
}

async function readTrusted(text, words) {
  const policy = await parsePolicy(encodeText(text.endsWith("\n") ? text : `${text}\n`));
  return { policy, isQuorum: true, words };
}

async function keyTrusted(vkey, witnesses, words) {
  return { policy: await parsePolicy(encodeText(`log ${vkey}\n${witnesses}`)), isQuorum: false, words };
}

async function shownKey(segment) {
  const answer = await fetch(`/segments/${segment}`, { cache: "no-store" });
  return answer.ok ? (await answer.json()).vkey : undefined;
}
