// Series of measurements in bounded room: how late events are, and how a number has moved since the page was opened.

/** The last so many values, and what most of them are. */
export class Recent {
  #values = [];
  #at = 0;
  #size;

  constructor(size = 500) {
    this.#size = size;
  }

  add(value) {
    this.#values[this.#at] = value;
    this.#at = (this.#at + 1) % this.#size;
  }

  /** The value that a share of the others (0 to 1) does not exceed, or undefined. */
  quantile(share) {
    const sorted = [...this.#values].sort((one, other) => one - other);
    return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  }
}

/** A number over time, from the first moment to now: when there are too many samples every second one goes. */
export class Course {
  samples = [];
  #every = 1;
  #skipped = 0;
  #most;

  constructor(most = 120) {
    this.#most = most;
  }

  add(value) {
    this.#skipped += 1;
    if (this.#skipped < this.#every) return;
    this.#skipped = 0;
    this.samples.push(value);
    if (this.samples.length > this.#most) {
      this.samples = this.samples.filter((_, index) => index % 2 === 0);
      this.#every *= 2;
    }
  }
}
