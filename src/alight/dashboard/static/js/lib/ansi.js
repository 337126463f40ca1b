// The text of a log line, with its colours and carriage returns, as pieces that a page can draw. Everything else that a
// terminal would obey (cursor moves, titles, links) is left out.

// CSI … final byte | OSC … end | other escapes of two or three characters
const SEQUENCE = /\x1b(?:\[([0-9;:?<=>]*)[ -/]*([@-~])|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)|[ -/]*(?![[\]PX^_])[0-~])/g;
// eslint-disable-next-line no-control-regex
const CONTROL = /[\x00-\x07\x0b-\x0c\x0e-\x1a\x1c-\x1f\x7f]/g;
const PLAIN = Object.freeze({});

/** [{text, style}]: style has fg and bg (0–255 or "#rrggbb"), bold, dim, italic, underline, strike, inverse. */
export function pieces(line) {
  if (!line.includes("\x1b") && !line.includes("\r") && !line.includes("\b")) {
    const text = line.replace(CONTROL, "");
    return text ? [{ text, style: PLAIN }] : [];
  }
  const cells = [];
  let [at, style, from] = [0, PLAIN, 0];
  const write = (text) => {
    for (const character of text) {
      if (character === "\r") at = 0;
      else if (character === "\b") at = Math.max(0, at - 1);
      else if (character >= " " || character === "\t") cells[at++] = [character, style];
    }
  };
  SEQUENCE.lastIndex = 0;
  for (let found = SEQUENCE.exec(line); found; found = SEQUENCE.exec(line)) {
    write(line.slice(from, found.index));
    from = SEQUENCE.lastIndex;
    if (found[2] === "m") style = changed(style, found[1]);
    else if (found[2] === "K") erase(cells, at, found[1]);
    else if (found[2] === "G") at = Math.min(10_000, Math.max(0, (Number(found[1]) || 1) - 1));
  }
  write(line.slice(from).replace(/\x1b[^]*$/, ""));
  return joined(cells);
}

/** The line's words alone. */
export const plain = (line) => pieces(line).map(({ text }) => text).join("");

function erase(cells, at, how) {
  if (how === "2") cells.length = 0;
  else if (how === "1") cells.fill([" ", PLAIN], 0, at);
  else cells.length = Math.min(cells.length, at);
}

function joined(cells) {
  const found = [];
  for (let index = 0; index < cells.length; index += 1) {
    const [character, style] = cells[index] ?? [" ", PLAIN];
    const last = found[found.length - 1];
    if (last && last.style === style) last.text += character;
    else found.push({ text: character, style });
  }
  return found;
}

const ON = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike" };
const OFF = { 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"], 27: ["inverse"], 29: ["strike"], 39: ["fg"], 49: ["bg"] };

function changed(before, parameters) {
  const codes = parameters.split(/[;:]/).map(Number);
  let style = { ...before };
  for (let index = 0; index < codes.length; index += 1) {
    const code = codes[index];
    if (code === 0) style = {};
    else if (ON[code]) style[ON[code]] = true;
    else if (OFF[code]) for (const name of OFF[code]) delete style[name];
    else if (code >= 30 && code <= 37) style.fg = code - 30;
    else if (code >= 90 && code <= 97) style.fg = code - 82;
    else if (code >= 40 && code <= 47) style.bg = code - 40;
    else if (code >= 100 && code <= 107) style.bg = code - 92;
    else if (code === 38 || code === 48) {
      const name = code === 38 ? "fg" : "bg";
      if (codes[index + 1] === 5) {
        style[name] = codes[index + 2] & 255;
        index += 2;
      } else if (codes[index + 1] === 2) {
        const [red, green, blue] = codes.slice(index + 2, index + 5).map((part) => part & 255);
        style[name] = `#${[red, green, blue].map((part) => (part ?? 0).toString(16).padStart(2, "0")).join("")}`;
        index += 4;
      }
    }
  }
  return style;
}

const CUBE = [0, 95, 135, 175, 215, 255];

/** A CSS colour for 16–255 of a terminal's palette; the first sixteen are the theme's (see app.css). */
export function color(value) {
  if (typeof value === "string") return value;
  if (value >= 232) return `rgb(${Array(3).fill(8 + (value - 232) * 10).join(" ")})`;
  if (value < 16) return `var(--ansi-${value})`;
  const rest = value - 16;
  return `rgb(${CUBE[Math.floor(rest / 36)]} ${CUBE[Math.floor(rest / 6) % 6]} ${CUBE[rest % 6]})`;
}
