// Verifies evidence bundles with the modules of tlog_client/browser.
//
// The arguments are the files of a bundle, of a trust policy, or -, and of the table of clauses. Each line of standard input is
// a list of changes, [place, value] of a byte; each of standard output is what became of the bundle with these: the text of
// its report, or { place, message } of the refusal.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { reportOf, reportText, verifyBundle } from "../../client/tlog_client/browser/bundle.js";
import { MalformedError, RefusedError } from "../../client/tlog_client/browser/errors.js";
import { parsePolicy } from "../../client/tlog_client/browser/policy.js";

const [bundle, policy, clauses] = process.argv.slice(2);
const raw = new Uint8Array(readFileSync(bundle));
const trust = policy === "-" ? null : await parsePolicy(new Uint8Array(readFileSync(policy)));
const table = JSON.parse(readFileSync(clauses, "utf-8"));

async function outcome(changes) {
  const changed = raw.slice();
  for (const [place, value] of changes) changed[place] = value;
  try {
    return reportText(reportOf(await verifyBundle(changed, trust), table));
  } catch (error) {
    if (!(error instanceof MalformedError || error instanceof RefusedError)) throw error;
    return { place: error.place, message: error.message };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await outcome(JSON.parse(line))));
}
