#!/bin/sh
# Made the two clips beside this file (flite 2.2, its built-in voices; sox to Ogg Vorbis). Not run by any test.
cd "$(dirname "$0")" || exit 1
text="The quick survey of the harbour was finished by nine, and nobody asked why the old lighthouse keeper had laughed at us. Are you sure? Well, we are."
for voice in rms slt; do
    flite -voice "$voice" -t "$text" -o "$voice.wav"
    sox "$voice.wav" -r 16000 -c 1 -C 6 "$voice.ogg"
    rm "$voice.wav"
done
