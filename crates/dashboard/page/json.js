// JSON made readable without being read: the text itself is laid out anew, token by token, so that a decimal stays
// 1.50, a long number keeps its digits and keys keep their order.

const TOKEN = /\s+|"(?:[^"\\]|\\[^])*"|[{}[\],:]|[^\s"{}[\],:]+/gy;
const INDENT = "  ";

/**
 * The tokens of a text of JSON with line breaks and indentation: `{ kind, text }`, where kind is "key", "string",
 * "number", "word" or "mark". Joined they are the readable text. What is no JSON comes back as it is, as one "mark".
 */
export function layOut(text) {
  const tokens = [];
  let depth = 0;
  const put = (kind, text) => tokens.push({ kind, text });
  const line = () => put("mark", "\n" + INDENT.repeat(depth));

  const words = [...text.matchAll(TOKEN)].map(([word]) => word);
  if (words.join("").length !== text.length) return [{ kind: "mark", text }];
  const dense = words.filter((word) => !/^\s/.test(word));
  for (let at = 0; at < dense.length; at += 1) {
    const word = dense[at];
    const next = dense[at + 1];
    switch (word) {
      case "{":
      case "[":
        if (next === "}" || next === "]") {
          put("mark", word + next);
          at += 1;
        } else {
          put("mark", word);
          depth += 1;
          line();
        }
        break;
      case "}":
      case "]":
        depth = Math.max(0, depth - 1);
        line();
        put("mark", word);
        break;
      case ",":
        put("mark", word);
        line();
        break;
      case ":":
        put("mark", ": ");
        break;
      default:
        put(kindOf(word, next), word);
    }
  }
  return tokens;
}

function kindOf(word, next) {
  if (word.startsWith('"')) return next === ":" ? "key" : "string";
  return /^[-\d]/.test(word) ? "number" : "word";
}
