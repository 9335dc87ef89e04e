<?php
// What a wiki holds, read from its SQLite file without MediaWiki's code: one JSON object a revision, those of deleted pages
// too. Texts are in hexadecimal digits, for not all are UTF-8; one that is lost is null.
// Usage: truth.php FILE.sqlite
$db = new PDO( "sqlite:$argv[1]", null, null, [ PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION ] );
$rows = $db->query( "SELECT rev_id, rev_parent_id, rev_timestamp, rev_deleted, rev_len, rev_sha1, page_id, page_title,
		page_namespace, page_is_redirect, page_latest, 0 AS archived, actor_name, actor_user, comment_text
	FROM revision JOIN page ON rev_page = page_id JOIN actor ON rev_actor = actor_id
		JOIN revision_comment_temp ON revcomment_rev = rev_id JOIN comment ON revcomment_comment_id = comment_id
	UNION ALL
	SELECT ar_rev_id, ar_parent_id, ar_timestamp, ar_deleted, ar_len, ar_sha1, ar_page_id, ar_title,
		ar_namespace, 0, 0, 1, actor_name, actor_user, comment_text
	FROM archive JOIN actor ON ar_actor = actor_id JOIN comment ON ar_comment_id = comment_id
	ORDER BY 1", PDO::FETCH_ASSOC );
$slots = $db->prepare( "SELECT role_name, model_name, slot_origin, content_size, content_sha1, old_text, old_flags
	FROM slots JOIN slot_roles ON slot_role_id = role_id JOIN content ON slot_content_id = content_id
		JOIN content_models ON content_model = model_id LEFT JOIN text ON old_id = CAST(substr(content_address, 4) AS INTEGER)
	WHERE slot_revision_id = ?" );
$redirect = $db->prepare( "SELECT rd_namespace, rd_title, rd_interwiki, rd_fragment, page_id, page_is_redirect
	FROM redirect LEFT JOIN page ON page_namespace = rd_namespace AND page_title = rd_title AND rd_interwiki = ''
	WHERE rd_from = ?" );
foreach ( $rows as $row ) {
	$slots->execute( [ $row['rev_id'] ] );
	$row['slots'] = new stdClass;
	foreach ( $slots->fetchAll( PDO::FETCH_ASSOC ) as $slot ) {
		$text = $slot['old_text'];
		foreach ( array_filter( explode( ',', $slot['old_flags'] ?? '' ) ) as $flag ) {
			if ( $flag === 'gzip' ) {
				$text = gzinflate( $text );
			} elseif ( $flag === 'external' ) {
				// It is elsewhere, or nowhere.
				$text = null;
			} elseif ( $flag !== 'utf-8' ) {
				fwrite( STDERR, "revision {$row['rev_id']}: text is stored as '{$slot['old_flags']}'\n" );
				exit( 1 );
			}
		}
		$role = $slot['role_name'];
		unset( $slot['role_name'], $slot['old_flags'], $slot['old_text'] );
		$row['slots']->$role = $slot + [ 'text' => $text === null ? null : bin2hex( $text ) ];
	}
	$redirect->execute( [ $row['page_id'] ] );
	$row['redirect'] = $redirect->fetch( PDO::FETCH_ASSOC ) ?: null;
	echo json_encode( $row, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE ), "\n";
}
