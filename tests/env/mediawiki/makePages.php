<?php
// Does what standard input says, one JSON object a line:
//   {"op":"save","title":"T","slots":{"main":{"model":"wikitext","text":"..."}}}    a new revision
//        "user":"..."   by this user instead of the tester; an IP address or `prefix>Name` is nobody's account
//        "times":N      so many new revisions; `%d` in the text is the number
//   {"op":"store","title":"T","hex":"..."}       what the newest revision has in its main slot becomes these bytes, past all
//        that MediaWiki does to a text before it saves it; a slot that is not there is added. "role", "model", "flags"
//        (`utf-8`, `utf-8,gzip`) and "repeat" (so many times these bytes) may be given
//   {"op":"lose","title":"T","what":"text"}      deletes the newest revision's text; "content": what says where it is;
//        "slots": all rows that name its slots; "page": the page's row alone; "known": the text is marked as lost
//   {"op":"hide","title":"T"}      hides the text of the newest revision but one (the newest cannot be hidden)
//        "bits":N       hides these instead: 1 text, 2 comment, 4 user, 8 from administrators too
//   {"op":"move","title":"T","to":"U"}           "redirect":false leaves none behind
//   {"op":"delete","title":"T"}    deletes the page
//   {"op":"undelete","title":"T"}  brings it back
use MediaWiki\MediaWikiServices;
use MediaWiki\Revision\RevisionRecord;
use MediaWiki\Revision\RevisionStore;
use MediaWiki\Revision\SlotRecord;
use MediaWiki\User\UserIdentityValue;
use Wikimedia\IPUtils;

require_once getenv( 'MW_INSTALL_PATH' ) . '/maintenance/Maintenance.php';

class MakePages extends Maintenance {
	private const GZIP_FLAG = 'gzip';
	private $db;
	private $services;

	public function execute() {
		$user = User::newSystemUser( 'Weir tester', [ 'steal' => true ] );
		$this->services = MediaWikiServices::getInstance();
		$this->db = $this->getDB( DB_PRIMARY );
		$done = 0;
		$this->beginTransaction( $this->db, __METHOD__ );
		for ( ; ( $line = fgets( STDIN ) ) !== false; $done++ ) {
			$op = json_decode( $line, true, 64, JSON_THROW_ON_ERROR );
			$title = Title::newFromTextThrow( $op['title'] );
			$page = $this->services->getWikiPageFactory()->newFromTitle( $title );
			switch ( $op['op'] ) {
				case 'save':
					for ( $time = 1; $time <= ( $op['times'] ?? 1 ); $time++ ) {
						$this->save( $page, isset( $op['user'] ) ? $this->user( $op['user'] ) : $user, $op['slots'], $time );
					}
					break;
				case 'store':
					$this->store( $title, $op );
					break;
				case 'lose':
					$this->lose( $title, $op['what'] );
					break;
				case 'hide':
					$this->hide( $title, $op['bits'] ?? RevisionRecord::DELETED_TEXT );
					break;
				case 'move':
					$this->must( $title, $this->services->getMovePageFactory()
						->newMovePage( $title, Title::newFromTextThrow( $op['to'] ) )->move( $user, 'test', $op['redirect'] ?? true ) );
					break;
				case 'delete':
					$this->must( $title, $this->services->getDeletePageFactory()->newDeletePage( $page, $user )
						->forceImmediate( true )->deleteUnsafe( 'test' ) );
					break;
				case 'undelete':
					$this->must( $title,
						$this->services->getUndeletePageFactory()->newUndeletePage( $page, $user )->undeleteUnsafe( 'test' ) );
					break;
				default:
					$this->fatalError( "unknown operation: $line" );
			}
		}
		$this->commitTransaction( $this->db, __METHOD__ );
		$this->output( "$done\n" );
	}

	private function must( Title $title, StatusValue $status ) {
		if ( !$status->isGood() ) {
			$this->fatalError( "$title: $status" );
		}
	}

	private function user( string $name ) {
		if ( IPUtils::isIPAddress( $name ) || str_contains( $name, '>' ) ) {
			return new UserIdentityValue( 0, $name );
		}
		return User::newFromName( $name ) ?: $this->fatalError( "$name is no name for a user" );
	}

	private function save( $page, $user, array $slots, int $time ) {
		if ( $user instanceof User && !$user->isRegistered() ) {
			$user->addToDatabase();
		}
		$updater = $page->newPageUpdater( $user );
		foreach ( $slots as $role => $slot ) {
			$text = str_replace( '%d', (string)$time, $slot['text'] );
			$updater->setContent( $role, ContentHandler::makeContent( $text, null, $slot['model'] ) );
		}
		$updater->saveRevision( CommentStoreComment::newUnsavedComment( 'test' ), EDIT_SUPPRESS_RC );
		if ( !$updater->wasSuccessful() ) {
			$this->fatalError( $page->getTitle() . ': ' . $updater->getStatus() );
		}
	}

	private function newest( Title $title ) {
		$newest = $this->services->getRevisionStore()->getRevisionByTitle( $title, 0, RevisionStore::READ_LATEST );
		return $newest ?: $this->fatalError( "$title: no such page" );
	}

	private function store( Title $title, array $op ) {
		$bytes = str_repeat( hex2bin( $op['hex'] ), $op['repeat'] ?? 1 );
		$flags = $op['flags'] ?? 'utf-8';
		$zipped = in_array( self::GZIP_FLAG, explode( ',', $flags ) );
		$this->db->insert( 'text',
			[ 'old_text' => $this->db->encodeBlob( $zipped ? gzdeflate( $bytes ) : $bytes ), 'old_flags' => $flags ], __METHOD__ );
		$address = 'tt:' . $this->db->insertId();
		$revision = $this->newest( $title );
		$role = $this->services->getSlotRoleStore()->acquireId( $op['role'] ?? SlotRecord::MAIN );
		$slot = [ 'slot_revision_id' => $revision->getId(), 'slot_role_id' => $role ];
		$content = [
			'content_size' => strlen( $bytes ),
			'content_sha1' => SlotRecord::base36Sha1( $bytes ),
			'content_address' => $address,
		];
		if ( isset( $op['model'] ) ) {
			$content['content_model'] = $this->services->getContentModelStore()->acquireId( $op['model'] );
		}
		$known = $this->db->selectField( 'slots', 'slot_content_id', $slot, __METHOD__ );
		if ( $known ) {
			$this->db->update( 'content', $content, [ 'content_id' => $known ], __METHOD__ );
		} else {
			$this->db->insert( 'content', $content, __METHOD__ );
			$slot += [ 'slot_content_id' => $this->db->insertId(), 'slot_origin' => $revision->getId() ];
			$this->db->insert( 'slots', $slot, __METHOD__ );
		}
	}

	private function lose( Title $title, string $what ) {
		$slots = [ 'slot_revision_id' => $this->newest( $title )->getId() ];
		$contents = [ 'content_id' => $this->db->selectFieldValues( 'slots', 'slot_content_id', $slots, __METHOD__ ) ];
		$addresses = $this->db->selectFieldValues( 'content', 'content_address', $contents, __METHOD__ );
		$texts = [ 'old_id' => array_map( static fn ( $address ) => substr( $address, 3 ), $addresses ) ];
		switch ( $what ) {
			case 'text':
				return $this->db->delete( 'text', $texts, __METHOD__ );
			case 'content':
				return $this->db->delete( 'content', $contents, __METHOD__ );
			case 'slots':
				return $this->db->delete( 'slots', $slots, __METHOD__ );
			case 'page':
				return $this->db->delete( 'page', [ 'page_id' => $title->getArticleID( Title::READ_LATEST ) ], __METHOD__ );
			case 'known':
				// As maintenance/findBadBlobs.php marks it.
				return $this->db->update( 'content', [ 'content_address' => 'bad:' . urlencode( $addresses[0] ) ], $contents, __METHOD__ );
			default:
				$this->fatalError( "$what cannot be lost" );
		}
	}

	private function hide( Title $title, int $bits ) {
		$hidden = $this->services->getRevisionStore()->getPreviousRevision( $this->newest( $title ) );
		if ( !$hidden ) {
			$this->fatalError( "$title: no older revision to hide" );
		}
		$this->db->update( 'revision', [ 'rev_deleted' => $bits ], [ 'rev_id' => $hidden->getId() ], __METHOD__ );
	}
}
$maintClass = MakePages::class;
require_once RUN_MAINTENANCE_IF_MAIN;
