// What a monitor says at /metrics (spec/monitoring.md), as tables.

import { MalformedError } from "./errors.js";

const SAMPLE = /^(tlog_monitor_\w+?)(?:_total)?(?:\{(.*)\})? ([0-9.e+-]+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"(?:,|$)/gy;

/** Return { said, tables, means } of the text of metrics; raise MalformedError if they are not those of a monitor. */
export function readMetrics(text) {
  const samples = text.split("\n").map((line) => SAMPLE.exec(line)).filter(Boolean).map(sampleOf);
  const logs = samples.filter(({ name }) => name === "tlog_monitor_size");
  if (logs.length === 0) throw new MalformedError("there is no size of any log among these metrics");
  const rounds = samples.find(({ name }) => name === "tlog_monitor_rounds")?.value ?? 0;
  return {
    said: `it follows ${logs.length} ${logs.length === 1 ? "log" : "logs"}, and ${rounds.toLocaleString("en")} of its rounds of gossip have ended since it began`,
    facts: [],
    heads: [],
    tables: [logTable(samples, logs), findingTable(samples)].filter(({ rows }) => rows.length > 0),
    means: "Nobody signed this: it is worth what you know of whom you have it from. Evidence that a monitor has found is a file by itself; bring it too.",
    todo: [],
  };
}

function logTable(samples, logs) {
  const of = (name, origin) => samples.find((one) => one.name === name && one.labels.origin === origin)?.value;
  const rows = logs.map(({ labels: { origin }, value }) => {
    const troubles = samples.filter((one) => one.name === "tlog_monitor_complaint" && one.labels.origin === origin && one.value);
    const seen = of("tlog_monitor_verified_time_seconds", origin);
    const state = of("tlog_monitor_convicted", origin) ? "convicted by evidence" : troubles.map(({ labels }) => complaint(labels)).join(", ");
    return [
      origin,
      counted(value),
      counted(of("tlog_monitor_looked", origin)),
      seen ? new Date(seen * 1000).toISOString().slice(0, 19).replace("T", " ") : "never",
      state || "no complaint",
    ];
  });
  return { head: ["Log", "Verified size", "Entries looked at", "Last head, UTC", "State"], rows };
}

function findingTable(samples) {
  const found = samples.filter(({ name, value }) => name === "tlog_monitor_findings" && value > 0);
  const rows = found.map(({ labels, value }) => [labels.origin, labels.class, labels.kind, counted(value)]);
  return { head: ["Log", "Class", "Kind", "Findings so far"], rows };
}

function complaint({ kind, witness }) {
  return witness ? `${kind} (${witness})` : kind;
}

function sampleOf([, name, labels = "", value]) {
  const pairs = [...labels.matchAll(LABEL)].map(([, label, text]) => [label, text.replace(/\\(.)/g, (_, one) => (one === "n" ? "\n" : one))]);
  return { name, labels: Object.fromEntries(pairs), value: Number(value) };
}

function counted(value) {
  return value === undefined ? "" : value.toLocaleString("en");
}
