// Events per second by resource type, of the last minute: a ring of seconds for each type.

export const SECONDS = 60;

export class Rates {
  #rings = new Map();
  #now = 0;

  /** Counts one event of a type in a second (a whole number that never falls). */
  count(type, second) {
    this.#advance(second);
    let ring = this.#rings.get(type);
    if (!ring) {
      ring = new Uint32Array(SECONDS + 1);
      this.#rings.set(type, ring);
    }
    ring[second % (SECONDS + 1)] += 1;
  }

  /** Forgets everything: the chart begins anew. */
  clear() {
    this.#rings.clear();
  }

  /**
   * The last whole seconds before this one, the oldest first: `{ type, values, total }` of each type that has any, the
   * most frequent first.
   */
  series(second) {
    this.#advance(second);
    const all = [];
    for (const [type, ring] of this.#rings) {
      const values = Array.from({ length: SECONDS }, (_, index) => ring[(second + 1 + index) % (SECONDS + 1)]);
      const total = values.reduce((sum, value) => sum + value, 0);
      if (total > 0) all.push({ type, values, total });
      else if (ring[second % (SECONDS + 1)] === 0) this.#rings.delete(type);
    }
    return all.sort((one, other) => other.total - one.total || (one.type < other.type ? -1 : 1));
  }

  #advance(second) {
    const passed = Math.min(second - this.#now, SECONDS + 1);
    for (let back = 0; back < passed; back += 1) {
      for (const ring of this.#rings.values()) ring[(second - back) % (SECONDS + 1)] = 0;
    }
    this.#now = Math.max(this.#now, second);
  }
}

/** Which colour a type has: as long as it is among the most frequent it keeps the one that it has. */
export class Colours {
  #slots;
  #of = new Map();

  constructor(slots) {
    this.#slots = slots;
  }

  /** Gives the first types of a list a colour each, 1 to the number of slots. */
  assign(types) {
    const shown = types.slice(0, this.#slots);
    for (const type of this.#of.keys()) {
      if (!shown.includes(type)) this.#of.delete(type);
    }
    const taken = new Set(this.#of.values());
    let free = 1;
    for (const type of shown) {
      if (this.#of.has(type)) continue;
      while (taken.has(free)) free += 1;
      taken.add(free);
      this.#of.set(type, free);
    }
  }

  /** The slot of a type; 0 for what has no colour of its own. */
  of(type) {
    return this.#of.get(type) ?? 0;
  }
}
