// SHA-256 (FIPS 180-4) at once, without a promise: for many short messages, of which WebCrypto spends more time on each call
// than on the hash.

const BLOCK_BYTES = 64;
const ROUND_CONSTANTS = roundConstants();
const FIRST_STATE = firstState();
const SCHEDULE = new Int32Array(64);

/** Hashes messages given in parts; each digest is 32 bytes of its own. */
export class Hasher {
  #state = new Int32Array(8);
  #length = 0;
  #scratch;
  #view;

  constructor() {
    this.#resize(1 << 16);
  }

  /** Begin a message. */
  start() {
    this.#length = 0;
    return this;
  }

  /** Go on with these bytes. */
  add(part) {
    const end = this.#length + part.length;
    if (end + 2 * BLOCK_BYTES > this.#scratch.length) this.#resize(2 * (end + 2 * BLOCK_BYTES));
    this.#scratch.set(part, this.#length);
    this.#length = end;
    return this;
  }

  /** Return the hash of the message. */
  digest() {
    const padded = (this.#length + 9 + BLOCK_BYTES - 1) & -BLOCK_BYTES;
    this.#scratch.fill(0, this.#length, padded);
    this.#scratch[this.#length] = 0x80;
    this.#view.setUint32(padded - 8, Math.floor(this.#length / 2 ** 29));
    this.#view.setUint32(padded - 4, this.#length << 3);
    this.#state.set(FIRST_STATE);
    for (let place = 0; place < padded; place += BLOCK_BYTES) compress(this.#state, this.#view, place);
    const hash = new Uint8Array(32);
    for (let place = 0; place < 32; place += 1) hash[place] = this.#state[place >> 2] >>> (24 - 8 * (place & 3));
    return hash;
  }

  #resize(length) {
    const resized = new Uint8Array(length);
    if (this.#scratch) resized.set(this.#scratch.subarray(0, this.#length));
    this.#scratch = resized;
    this.#view = new DataView(resized.buffer);
  }
}

function compress(state, view, place) {
  const w = SCHEDULE;
  const k = ROUND_CONSTANTS;
  for (let t = 0; t < 16; t += 1) w[t] = view.getInt32(place + 4 * t);
  for (let t = 16; t < 64; t += 1) {
    const two = w[t - 2];
    const fifteen = w[t - 15];
    const s1 = ((two >>> 17) | (two << 15)) ^ ((two >>> 19) | (two << 13)) ^ (two >>> 10);
    const s0 = ((fifteen >>> 7) | (fifteen << 25)) ^ ((fifteen >>> 18) | (fifteen << 14)) ^ (fifteen >>> 3);
    w[t] = (s1 + w[t - 7] + s0 + w[t - 16]) | 0;
  }
  let a = state[0];
  let b = state[1];
  let c = state[2];
  let d = state[3];
  let e = state[4];
  let f = state[5];
  let g = state[6];
  let h = state[7];
  for (let t = 0; t < 64; t += 1) {
    const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const one = (h + s1 + (g ^ (e & (f ^ g))) + k[t] + w[t]) | 0;
    const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const two = (s0 + ((a & b) | (c & (a | b)))) | 0;
    h = g;
    g = f;
    f = e;
    e = (d + one) | 0;
    d = c;
    c = b;
    b = a;
    a = (one + two) | 0;
  }
  state[0] += a;
  state[1] += b;
  state[2] += c;
  state[3] += d;
  state[4] += e;
  state[5] += f;
  state[6] += g;
  state[7] += h;
}

// The first 32 bits of the fractions of the cube roots, and of the square roots, of the first primes.
function roundConstants() {
  return Int32Array.from(firstPrimes(64), (prime) => fraction(prime, 3n));
}

function firstState() {
  return Int32Array.from(firstPrimes(8), (prime) => fraction(prime, 2n));
}

function firstPrimes(count) {
  const primes = [];
  for (let number = 2; primes.length < count; number += 1) {
    if (primes.every((prime) => number % prime)) primes.push(number);
  }
  return primes;
}

// In whole numbers: the root of prime * 2^(32 * power), less its whole part.
function fraction(prime, power) {
  const wanted = BigInt(prime) << (32n * power);
  let [low, high] = [0n, 1n << 40n];
  while (high - low > 1n) {
    const middle = (low + high) >> 1n;
    if (middle ** power <= wanted) low = middle;
    else high = middle;
  }
  return Number(BigInt.asIntN(32, low));
}
