// JSON that every reader understands alike (RFC 7493), and its canonical form (RFC 8785).
//
// JSON.parse keeps the last of two members of one name, and rounds large numbers: so the text is walked here.

import { decodeText, encodeText } from "./bytes.js";
import { MalformedError } from "./errors.js";

export const MAX_JSON_DEPTH = 64;

const JSON_NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const JSON_SPACE = /[ \t\n\r]*/y;
// The names of the members of an object whose numbers are not written as integers, be they whole.
const FRACTIONS = Symbol("fractions");
const JSON_TOKEN = /\{\}|\[\]|[{}[\],:]|"[^"\\]*(?:\\.[^"\\]*)*"|[^"{}[\],:]+/g;
const MAX_INDENTED_BYTES = 2 ** 21;
const JSON_WORDS = { true: true, false: false, null: null };

/** Return the value of bytes of JSON, objects without a prototype; raise MalformedError. */
export function parseJson(raw, depth = MAX_JSON_DEPTH) {
  return new JsonReader(decodeText(raw, "JSON"), depth).whole();
}

/** Return the RFC 8785 form of a value that `parseJson` returned, as text. */
export function canonicalText(value) {
  if (Array.isArray(value)) return `[${value.map(canonicalText).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  // Sorted by UTF-16 code units, as RFC 8785 has it, and as JavaScript does by itself.
  const names = Object.keys(value).sort();
  return `{${names.map((name) => `${JSON.stringify(name)}:${canonicalText(value[name])}`).join(",")}}`;
}

/** Return the RFC 8785 form of a value, as bytes. */
export function canonicalJson(value) {
  return encodeText(canonicalText(value));
}

/**
 * Return JSON without spaces with an indented line for each member and element; as it is, if that takes more than 2 MiB.
 *
 * Its tokens stay as they are, and in their order: objects in between would put members whose names are numbers first.
 */
export function jsonLines(text) {
  const parts = [];
  let [depth, room] = [0, MAX_INDENTED_BYTES - encodeText(text).length];
  for (const [token] of text.matchAll(JSON_TOKEN)) {
    depth += "{[".includes(token) - "}]".includes(token);
    const [before, after] = tokenSpaces(token, `\n${"  ".repeat(depth)}`);
    room -= before.length + after.length;
    if (room < 0) return text;
    parts.push(before, token, after);
  }
  return parts.join("");
}

function tokenSpaces(token, line) {
  if (token === ":") return ["", " "];
  if ("{[,".includes(token)) return ["", line];
  return "}]".includes(token) ? [line, ""] : ["", ""];
}

/** Return the member, a string that is not empty; raise MalformedError. */
export function textMember(members, name) {
  const value = members[name];
  if (typeof value !== "string" || !value) throw new MalformedError(`${name} is not a string, or is empty`);
  return value;
}

/** Return the member, a whole number from 0 to 2^53-1 that is written as one; raise MalformedError. */
export function numberMember(members, name) {
  const value = members[name];
  if (!Number.isSafeInteger(value) || value < 0 || members[FRACTIONS].has(name)) {
    throw new MalformedError(`${name} is not a whole number from 0 to 2^53-1`);
  }
  return value;
}

/** Return the value if it is an object with exactly these members, and all or none of `together`. */
export function exactMembers(value, names, together = []) {
  // Not joined: a name may have any character in it, a comma too.
  const isOnly = (due) => Object.keys(value).length === due.length && due.every((name) => name in value);
  if (!isJsonObject(value) || !(isOnly(names) || isOnly([...names, ...together]))) {
    throw new MalformedError(`not an object with exactly the members ${[...names].sort().join(", ")}`);
  }
  return value;
}

export function isJsonObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

class JsonReader {
  constructor(text, depth) {
    this.text = text;
    this.depth = depth;
    this.place = 0;
  }

  whole() {
    const value = this.value();
    if (this.place !== this.text.length) this.refuse("more after the value");
    return value;
  }

  value() {
    this.take(JSON_SPACE);
    const value = this.bare();
    this.take(JSON_SPACE);
    return value;
  }

  bare() {
    const first = this.text[this.place];
    if (first === "{") return this.nested(() => this.object());
    if (first === "[") return this.nested(() => this.array());
    if (first === '"') return this.string();
    const word = Object.keys(JSON_WORDS).find((one) => this.text.startsWith(one, this.place));
    if (word === undefined) return this.number();
    this.place += word.length;
    return JSON_WORDS[word];
  }

  nested(read) {
    if (this.depth === 0) this.refuse("nests too deep");
    this.depth -= 1;
    this.place += 1;
    const value = read();
    this.depth += 1;
    return value;
  }

  object() {
    const members = Object.create(null, { [FRACTIONS]: { value: new Set() } });
    this.items("}", () => {
      this.take(JSON_SPACE);
      const name = this.string();
      if (name in members) this.refuse("a second member of one name");
      this.take(JSON_SPACE);
      if (this.text[this.place] !== ":") this.refuse("no colon");
      this.place += 1;
      const start = this.place;
      members[name] = this.value();
      if (typeof members[name] === "number" && /[.eE]/.test(this.text.slice(start, this.place))) {
        members[FRACTIONS].add(name);
      }
    });
    return members;
  }

  array() {
    const values = [];
    this.items("]", () => values.push(this.value()));
    return values;
  }

  items(end, read) {
    this.take(JSON_SPACE);
    for (let isFirst = true; this.text[this.place] !== end; isFirst = false) {
      if (!isFirst) {
        if (this.text[this.place] !== ",") this.refuse(`neither a comma nor ${end}`);
        this.place += 1;
      }
      read();
    }
    this.place += 1;
  }

  string() {
    if (this.text[this.place] !== '"') this.refuse("no string");
    let end = this.place + 1;
    while (end < this.text.length && this.text[end] !== '"') end += this.text[end] === "\\" ? 2 : 1;
    const value = this.unescaped(this.text.slice(this.place, end + 1));
    this.place = end + 1;
    return value;
  }

  unescaped(quoted) {
    let value;
    try {
      value = JSON.parse(quoted);
    } catch {
      this.refuse("a string that is not one of JSON");
    }
    if (/\p{Surrogate}/u.test(value)) this.refuse("a lone surrogate");
    return value;
  }

  number() {
    const text = this.take(JSON_NUMBER);
    if (text === undefined) this.refuse("no value");
    const number = Number(text);
    const isInteger = !/[.eE]/.test(text);
    // RFC 8785 writes what is below 1e21 and whole as an integer, which must then be readable as one.
    if (
      Math.abs(number) > Number.MAX_SAFE_INTEGER &&
      (isInteger || Math.abs(number) < 1e21 || !Number.isFinite(number))
    ) {
      this.refuse("a number beyond what every reader takes");
    }
    return number;
  }

  take(pattern) {
    pattern.lastIndex = this.place;
    const found = pattern.exec(this.text)?.[0];
    this.place += found?.length ?? 0;
    return found;
  }

  refuse(what) {
    throw new MalformedError(`not JSON that every reader understands alike: ${what} at character ${this.place}`);
  }
}
