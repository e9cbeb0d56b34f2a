// Text from elsewhere, with what a page would not show, or would obey, made visible.

/** Return text with each control character but tab and newline, and each that is unseen or reverses direction, as ‹U+202E›. */
export function visibleText(text) {
  return text.replace(/(?![\t\n])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    return `\u2039U+${code}\u203a`;
  });
}
