// Files that someone brings: what each is, whether it holds, and what it means, in plain words.
//
// What is found is { tone, title, said, facts, heads, means, todo }: facts are [name, value], and heads say who signed what, and
// who cosigned it when. Of evidence that is proven against a log it has `convicts`, the origin of that.

import { parseBulletin, openBulletin } from "./bulletin.js";
import { encodeBase64 } from "./bytes.js";
import { parseHead } from "./checkpoint.js";
import { openCosignatures } from "./cosignature.js";
import { MalformedError, RefusedError } from "./errors.js";
import { describeEvidence, parseEvidence } from "./evidence.js";
import { accuses, findingWords, gossipWords, signedWords } from "./monitor-words.js";
import { linesOf, parseNote } from "./note.js";
import { parseReceipt, verifyReceipt } from "./receipt.js";
import { shownTime } from "./times.js";
import { monitorKey, trustFor } from "./trusted.js";

export const MAX_FILE_BYTES = 2 ** 20;

/** What each kind of evidence says, and means; `accused` is "The log" or "The witness". */
const EVIDENCE_WORDS = {
  empty: {
    title: "A root that no tree has",
    means: () => "A log of no entries has one root, that of nothing. Who signs another has signed something that no honest log can.",
  },
  fork: {
    title: "Two histories of one size",
    means: (accused) =>
      `So many entries have one root only. ${accused} vouched for two: there are two histories, and whoever was shown the one has ` +
      "seen other entries than whoever was shown the other.",
  },
  prefix: {
    title: "A history that was changed",
    means: (accused) =>
      `${accused} vouched for a history, and for a longer one that does not begin with it. Entries that were logged have been ` +
      "changed, removed, or had others put before them.",
  },
  entry: {
    title: "Two entries in one place",
    means: (accused) =>
      `${accused} vouched for two histories with different entries in the same place. One of them was shown to some, the other to others.`,
  },
  backdating: {
    title: "An entry that says it is older than it can be",
    means: () =>
      "The witnesses cosigned a history without this entry more than a day after the time that the entry gives. It was put in " +
      "later than it says, or was kept from the witnesses. Of all kinds this alone may come of a failure: a log that was cut off for a " +
      "day looks the same. Its promise is broken either way.",
  },
};
const AGAINST_LOG = [
  "Believe this log no more, whatever it signs. It can go on under a new origin only.",
  "Keep the file, and send it to everyone who relies on the log: it proves the same to each who has the key.",
  "Verify it by tlog-client verify-evidence, which did not come from this server.",
];
const AGAINST_WITNESS = [
  "Take the witness out of your trust policy, and count no more what it cosigned.",
  "Keep the file, and send it to everyone who relies on the witness.",
  "Of the log this says nothing, unless there is a second file that accuses it.",
];

/** Return what a file is: evidence, receipt, bulletin, policy; or null. */
export function kindOf(raw) {
  const start = new TextDecoder().decode(raw.subarray(0, 4096));
  if (start.startsWith("tlog/evidence/")) return "evidence";
  if (/^\s*\{/.test(start)) return "receipt";
  if (start.startsWith("tlog/bulletin/")) return "bulletin";
  // No line can be read in two ways, or to find none would take for ever.
  return /^(?:#.*\n|[^\S\n]*\n)*[^\S\n]*(?:log|witness|quorum)[ \t]/.test(start) ? "policy" : null;
}

/** Return what a file holds, judged by `trust` as `trustFor` has it; MalformedError or RefusedError are told in what is found. */
export async function examine(raw, trust) {
  const kind = kindOf(raw);
  try {
    if (raw.length > MAX_FILE_BYTES) throw new MalformedError("it is larger than 1 MiB");
    if (kind === null || kind === "policy") {
      throw new MalformedError("it is neither evidence, nor a receipt, nor a bulletin");
    }
    return await EXAMINERS[kind](raw, trust);
  } catch (error) {
    if (!(error instanceof MalformedError || error instanceof RefusedError)) throw error;
    return refusal(kind, error);
  }
}

const EXAMINERS = {
  async evidence(raw, trust) {
    const evidence = await parseEvidence(raw);
    const { origin } = parseHead(evidence.notes[0].text);
    const { policy, words } = await trustFor(origin, trust);
    const said = await describeEvidence(evidence, policy, { now: Date.now() / 1000, formatTime: shownTime });
    return proven(evidence, said, words, await Promise.all(evidence.notes.map((note) => headFacts(note, policy))));
  },

  async receipt(raw, trust) {
    const receipt = parseReceipt(raw);
    const { origin } = parseHead(parseNote(receipt.checkpoint).text);
    const { policy, isQuorum, words } = await trustFor(origin, trust);
    const by = isQuorum ? { policy } : { key: policy.logs[0].key };
    const { checkpoint, entry } = await verifyReceipt(receipt, by);
    return logged(receipt, checkpoint, entry, words, isQuorum && policy.quorum);
  },

  async bulletin(raw, { monitors }) {
    const { name } = parseBulletin(raw).note.signatures[0];
    const { key, words } = await monitorKey(name, monitors);
    return announced(name, await openBulletin(raw, key), words);
  },
};

function proven({ kind, witness, index }, said, words, heads) {
  const { title, means } = EVIDENCE_WORDS[kind];
  const [role, name, verb] = witness === null ? ["log", heads[0].head.origin, "signed"] : ["witness", witness.name, "cosigned"];
  return {
    tone: "bad",
    title: `Proven: ${title[0].toLowerCase()}${title.slice(1)}`,
    said,
    facts: [["Accused", `${role} ${name}`], ...(index === null ? [] : [["Index", String(index)]]), ["Judged by", words]],
    heads: heads.map((head) => ({ ...head, verb })),
    convicts: witness === null ? heads[0].head.origin : undefined,
    means: means(`The ${role}`),
    todo: witness === null ? AGAINST_LOG : AGAINST_WITNESS,
  };
}

// Whose lines do not hold are not shown: nothing of the proof rests on them.
async function headFacts(note, policy) {
  const cosigned = [];
  for (const { name, key } of policy.witnesses) {
    if (linesOf(note, key).length === 0) continue;
    try {
      const times = await openCosignatures(note, key);
      cosigned.push(...times.filter(({ isChecked }) => isChecked).map(({ time }) => `${name}, ${shownTime(time * 1000n)}`));
    } catch (error) {
      if (!(error instanceof MalformedError || error instanceof RefusedError)) throw error;
    }
  }
  return { head: parseHead(note.text), cosigned };
}

function logged({ index, payloadType }, { origin, size, root }, { time, writer }, words, quorum) {
  return {
    tone: "good",
    title: "The receipt holds",
    said: `log ${origin} signed that entry ${index} is one of its ${size} entries`,
    facts: [
      ["Logged", shownTime(BigInt(time))],
      ["Writer", writer],
      ["Payload type", payloadType],
      ["Root", encodeBase64(root)],
      ["Quorum", quorum ? `${quorum} cosigned` : "not asked for; that takes a trust policy with one"],
      ["Judged by", words],
    ],
    heads: [],
    means:
      "The entry is in the history that the log signed, in this place, and cannot leave it unseen. What the payload said is not in a receipt: " +
      "whoever has the payload shows with it, by tlog-client verify, that it was this one.",
    todo: [],
  };
}

function announced(name, bulletin, words) {
  const { origin, head } = bulletin;
  return {
    tone: accuses(bulletin) ? "bad" : "plain",
    title: "What a monitor says",
    said: `monitor ${name} signed this of the log ${origin}`,
    facts: [
      ["Signed", signedWords(bulletin)],
      ["Verified size", head ? head.size.toLocaleString("en") : "none yet"],
      ...(head ? [["Root", encodeBase64(head.root)], ["Last head that held", shownTime(head.time)]] : []),
      ["Gossip", gossipWords(bulletin)],
      ["Findings", findingWords(bulletin).join(", ") || "none"],
      ["Judged by", words],
    ],
    heads: [],
    means: "It is the word of the monitor, and proves nothing against the log. Evidence that it found is a file by itself: ask it for that, and bring it too.",
    todo: [],
  };
}

function refusal(kind, error) {
  const isMalformed = error instanceof MalformedError;
  const what = ["evidence", "receipt", "bulletin"].includes(kind) ? kind : "file";
  const [title, means] = isMalformed
    ? [`This ${what} cannot be read`, UNREADABLE + (kind === null ? " Of a monitor bring its bulletin, not its metrics." : "")]
    : [`This ${what} proves nothing`, MEANS_NOTHING[kind]];
  return { tone: "warn", title, said: error.message, facts: [], heads: [], means, todo: [] };
}

const UNREADABLE = "It is cut short, was changed, or is something else. Get it again from whoever made it.";
const MEANS_NOTHING = {
  bulletin: "Of nobody: it was not signed like this, or not by the monitor whose key is known here. Ask the monitor for another.",
  evidence: "Of nobody. If the reason is that a key is not known, give a trust policy that has it, and it is judged anew.",
  receipt:
    "What it says was not signed like this, or not by a key that is believed here. That is no proof against the log: whoever gave you the receipt may have changed it.",
};
