// What docs/protocol.md says in a form that a program can check.

import { readFileSync } from "node:fs";
import { join } from "node:path";

const PAGE = readFileSync(join(import.meta.dirname, "../../docs/protocol.md"), "utf8");

/** The worked example, as text and parsed. */
export const exampleText = /<!-- example:.*?-->\n```json\n(.*?)```/s.exec(PAGE)[1];
export const example = JSON.parse(exampleText);

const BLOCKS = [...PAGE.matchAll(/```json\n(\{"type":"[a-z]+",.*?\})\n```/g)].map(([, json]) => JSON.parse(json));

/** The frames that stand on the page as examples, by type. */
export const exampleFrames = new Map(BLOCKS.map((frame) => [frame.type, frame]));

/** The fields that the page gives to a frame from the server. */
export function fieldsOf(type) {
  const section = new RegExp(`### \`${type}\`\\n(.*?)\\n##`, "s").exec(PAGE)[1];
  const cells = [...section.matchAll(/^\| ((?:`[\w.]+`(?:, )?)+) \|/gm)].map(([, cell]) => cell);
  const named = cells.flatMap((cell) => [...cell.matchAll(/`(\w+)/g)].map(([, name]) => name));
  return new Set(["type", ...named, ...Object.keys(exampleFrames.get(type))]);
}
