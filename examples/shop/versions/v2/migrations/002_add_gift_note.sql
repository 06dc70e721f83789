-- A note is from now on a gift note, printed on a card. Versions that write `note` go on
-- working: the trigger keeps what they write.
ALTER TABLE orders ADD COLUMN gift_note TEXT;

UPDATE orders SET gift_note = note WHERE note IS NOT NULL;

CREATE TRIGGER orders_note_is_gift_note AFTER INSERT ON orders
WHEN NEW.note IS NOT NULL AND NEW.gift_note IS NULL
BEGIN
    UPDATE orders SET gift_note = NEW.note WHERE id = NEW.id;
END;
