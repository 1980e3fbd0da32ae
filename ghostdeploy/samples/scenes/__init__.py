"""Scenes with exact labels, items of Fashion-MNIST on photographs, and the training of the networks that read them.

    items → render → make_sets      the sets that ship, from the images that ship
          → train                   one sample network: detect, landmarks, embed or segment

No images with boxes, points or identities were found whose licence lets them ship, so these are composed: what is where
is known to the pixel. Everything is drawn from seeds. Training has items of Fashion-MNIST's training split on eight of
the shipped photographs, evaluation items of the test split on the other four.
"""
