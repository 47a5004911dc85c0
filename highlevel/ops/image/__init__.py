"""Images: (height, width, channels) or batches of them; (channels, height, width) with data_format="channels_first"."""

from .colour import hsv_to_rgb, rgb_to_grayscale, rgb_to_hsv
from .cropping import crop_images, extract_patches, extract_patches_3d, pad_images
from .filtering import gaussian_blur, sobel_edges, ssim
from .resizing import resize, scale_and_translate
from .warping import affine_transform, map_coordinates, perspective_transform

__all__ = [
    "affine_transform",
    "crop_images",
    "extract_patches",
    "extract_patches_3d",
    "gaussian_blur",
    "hsv_to_rgb",
    "map_coordinates",
    "pad_images",
    "perspective_transform",
    "resize",
    "rgb_to_grayscale",
    "rgb_to_hsv",
    "scale_and_translate",
    "sobel_edges",
    "ssim",
]
