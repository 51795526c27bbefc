// Figures and names as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const PROTOCOLS = new Map([[1, "icmp"], [6, "tcp"], [17, "udp"], [47, "gre"], [50, "esp"], [58, "icmpv6"], [132, "sctp"], [136, "udplite"]]);

export const count = (number) => whole.format(number);

/** Three digits and a unit: 1.23 k. */
function scaled(number, base, units) {
  let at = 0;
  while (Math.abs(number) >= base - base / 2000 && at < units.length - 1) {
    number /= base;
    at += 1;
  }
  const digits = at === 0 ? (number % 1 && number < 10 ? 1 : 0) : number < 9.995 ? 2 : number < 99.95 ? 1 : 0;
  return `${number.toFixed(digits)}${units[at] && ` ${units[at]}`}`;
}

export const rate = (number) => scaled(number, 1000, ["", "k", "M", "G"]);
export const bytes = (number) => scaled(number, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
export const percent = (part, of) => (of > 0 ? `${((100 * part) / of).toFixed(1)} %` : "–");
export const ratio = (part, of, digits = 1) => (of > 0 ? (part / of).toFixed(digits) : "–");
export const protocol = (number) => PROTOCOLS.get(number) ?? `protocol ${number}`;

export function span(seconds) {
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min` : `${Math.floor(seconds)} s`;
}

/** Of a day, in the browser's time zone. */
export function clock(millis, fine) {
  const at = new Date(millis);
  const two = (number, digits = 2) => String(number).padStart(digits, "0");
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return fine ? `${time}.${two(at.getMilliseconds(), 3)}` : time;
}

export const plural = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;
