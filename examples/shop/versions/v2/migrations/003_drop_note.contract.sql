-- Only for the time when no version that writes `note` will run again.
DROP TRIGGER orders_note_is_gift_note;

ALTER TABLE orders DROP COLUMN note;
