"""Drawn scenes and clips: pictures with exact masks, made on the device."""
