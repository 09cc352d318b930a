"""The page of ``icgn app``: :func:`build_page` makes it, :func:`serving` serves it; both need the extra ``app``."""
