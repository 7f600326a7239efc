// Numbers and times as the page writes them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** A count: 12,345. */
export const count = (number) => whole.format(number);

/** A rate or a mean: one decimal while it is small. */
export const rate = (number) => (number > 0 && number < 9.95 ? tenths : whole).format(number);

/** A duration: 850 ms, 2.4 s, 3 min. */
export function duration(milliseconds) {
  if (milliseconds < 1000) return `${whole.format(milliseconds)} ms`;
  if (milliseconds < 90_000) return `${tenths.format(milliseconds / 1000)} s`;
  return `${whole.format(milliseconds / 60_000)} min`;
}

/** The time of day of an instant, here. */
export function timeOfDay(time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? "" : clock.format(date);
}
