"""Masks as files and pictures: COCO RLE, PNG, overlays."""
