// Times in milliseconds since the epoch, numbers or BigInts, as pages show them.

const FOR_EVER = 253_402_300_799_999n;
const UNITS = [
  ["days", 86_400n],
  ["hours", 3_600n],
  ["minutes", 60n],
];

/** Return a time in UTC, or its number beyond what a calendar has, as others may say. */
export function shownTime(milliseconds) {
  if (milliseconds > FOR_EVER) return `${milliseconds} ms`;
  return `${new Date(Number(milliseconds)).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** Return how long ago that was, in the largest unit of which there are two, or in seconds. */
export function shownAge(milliseconds) {
  const seconds = ageOf(milliseconds) / 1000n;
  const [name, length] = UNITS.find(([, length]) => seconds >= 2n * length) ?? ["s", 1n];
  return `${seconds / length} ${name} ago`;
}

/** Return how many milliseconds ago that was, none if it is still to come. */
export function ageOf(milliseconds) {
  const age = BigInt(Date.now()) - BigInt(milliseconds);
  return age > 0n ? age : 0n;
}
