"""Pages for people (spec/pages.md)."""

from tlog.web import assets, entries, entry, export, oidc, operations, policy, segments, sign_in, tokens, watching

PAGES = (
    *assets.ROUTES,
    *sign_in.ROUTES,
    *oidc.ROUTES,
    *segments.ROUTES,
    *entries.ROUTES,
    *entry.ROUTES,
    *export.ROUTES,
    *watching.ROUTES,
    *operations.ROUTES,
    *policy.ROUTES,
    *tokens.ROUTES,
)
"""The routes of all pages."""
