"""An energy report for its readers: the terminal, Markdown, CSV, and a page with plots."""

from __future__ import annotations

from snnkd_deploy.report.files import check as check_suffix
from snnkd_deploy.report.files import write_as
from snnkd_deploy.report.terminal import render

__all__ = ["check_suffix", "render", "write_as"]
