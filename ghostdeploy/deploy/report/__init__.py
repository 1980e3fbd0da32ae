"""Evidence on one page: bundles and receipts in, a self-contained HTML file or Markdown out.

It measures nothing that files tell already, and invents nothing: what the inputs lack is named with the command that
would add it. Every number on the page is one of the record inside it, `records.Report`, which `check` holds against the
files again. Golden images are replayed with the engines that are installed, to show where targets disagree.

    sources   which bundles and receipts               pictures   images and answers as thumbnails
    collect   files → Report                           charts     Report → SVG
    blocks    a bundle's diagnosis, block by block     page       Report → HTML          markdown   Report → text
    answers   what each bundle says to each image      check      HTML and files → differences

It needs Jinja2 and matplotlib (`pip install "ghostdeploy[report]"`), never torch, and is not on devices.
"""
