// The two ways in which a verifier says no.

/** The bytes do not have the form that their specification demands. */
export class MalformedError extends Error {
  name = "MalformedError";
}

/** What was read does not hold: a signature, a proof, a commitment. `where` is what broke, in words for people. */
export class RefusedError extends Error {
  name = "RefusedError";

  constructor(message, where) {
    super(message);
    this.where = where;
  }
}
