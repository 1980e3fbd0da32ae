"""One network of each family of the zoo."""

FAMILIES = (
    "ghostnet_050",
    "ghostnetv2_100",
    "ghostnetv3_050",
    "repghostnet_050",
    "g_ghost_regnetx_002",
    "ghost_resnet50",
    "ghost_vgg16",
)
