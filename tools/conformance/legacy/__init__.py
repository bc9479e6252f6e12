"""wintersweet 1.1.4, walked and recorded, and ours held against it.

    python -m tools.conformance.legacy            print the table: works, differs, missing
    python -m tools.conformance.legacy --record   record 1.1.4 anew, where there is a Python that it runs on

What 1.1.4 has and does stands in ``recorded.json``; where ours differs stands in ``differences.json``, each
with the subject of its row on the migration page. A difference that has gone, or has no row, is a failure.
"""
