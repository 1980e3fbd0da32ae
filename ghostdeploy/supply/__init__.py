"""Supply chain: signatures of bundles, and the bill of materials of an export.

In: finished bundles. Out: `signatures.json` beside the manifest, a CycloneDX document. Never: a change of a bundle's
own files. Checking a signature is `bundle.signature`, which apps have too.
"""
