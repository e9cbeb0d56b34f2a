// Text from elsewhere, with what a page would not show, or would obey, made visible (spec/pages.md).

/** Return text with each character that shows nothing, or changes how others are shown, as [U+202E], but for those to `keep`. */
export function visibleText(text, keep = "") {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cn}\p{Co}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/gu, (character) => {
    const code = character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    return keep.includes(character) ? character : `[U+${code}]`;
  });
}
