// What a bulletin says, in words.

import { ageOf, shownAge, shownTime } from "./times.js";

const LATE = 900_000n;

/** Say whether a bulletin was signed so long ago that its monitor may be down, or is held back. */
export function isLate({ time }) {
  return ageOf(time) > LATE;
}

/** Return whether a bulletin says that the log is convicted, or that there is evidence against it. */
export function accuses({ convicted, tallies }) {
  return convicted || tallies.some(({ found }) => found === "evidence");
}

/** Return the findings of a bulletin as a list of words. */
export function findingWords({ convicted, tallies }) {
  const tallied = tallies.map(({ found, kind, number }) => `${found}: ${kind}${number > 1n ? ` (${number})` : ""}`);
  return [...(convicted ? ["convicted by evidence"] : []), ...tallied];
}

/** Return how a monitor gossips. */
export function gossipWords({ gossip }) {
  return gossip === null ? "not so far" : `heard ${gossip.heard} of ${gossip.asked}, ${shownAge(gossip.time)}`;
}

/** Return when a bulletin was signed. */
export function signedWords(bulletin) {
  return `${shownTime(bulletin.time)}, ${shownAge(bulletin.time)}${isLate(bulletin) ? ": late" : ""}`;
}
