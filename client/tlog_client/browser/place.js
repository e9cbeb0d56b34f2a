// Where in a bundle something is wrong: `place` of an error.

import { MalformedError, RefusedError } from "./errors.js";

/** Return what `act` returns; note on an error of ours that comes through where it came up, unless that is noted already. */
export function atPlace(where, act) {
  try {
    return act();
  } catch (error) {
    throw placed(error, where);
  }
}

/** The same of what is waited for. */
export async function atPlaceLater(where, act) {
  try {
    return await act();
  } catch (error) {
    throw placed(error, where);
  }
}

/** Note on an error of ours where it came up, unless that is noted already, and return it. */
export function placed(error, where) {
  if (error instanceof MalformedError || error instanceof RefusedError) error.place ??= where;
  return error;
}
